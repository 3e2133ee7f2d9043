"""Teacher vectors with mean 0 and variance 1 in each dimension."""

from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill.teacher_statistics import TeacherStatistics
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import TextTeacher


class Standardizer(TeacherStatistics):
    """Subtracts a mean and divides by a standard deviation, per dimension.

    The statistics are those of :meth:`TextTeacher.sample`: all processes compute the
    same. They are computed once, at the first batch, and stay the same for the complete
    training, because the checkpoint has them. A dimension that is constant in the
    sample becomes 0 there; it is not divided.

    Args:
        width: C, width of the vectors.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # A deviation of 0 means that the statistics are not known.
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.zeros(width))

    def forward(self, vectors: Tensor, teacher: TextTeacher) -> Tensor:
        """Return the standardised vectors, ``(N, C)``, with their dtype.

        Args:
            vectors: ``(N, C)``.
            teacher: The teacher, for the statistics.
        """
        if not self._prepared:
            if not self.keeps(self.deviation, teacher):
                mean, deviation = _statistics(teacher, self.mean.numel())
                self.mean.copy_(mean)
                self.deviation.copy_(deviation)
            self._prepared = True
        return ((vectors - self.mean) / self.deviation).to(vectors.dtype)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        names = (prefix + "mean", prefix + "deviation")
        # A checkpoint of a training without standardisation has none.
        if all(name in state_dict for name in names):
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _statistics(teacher: TextTeacher, width: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each dimension, ``(C,)`` float64."""
    total, squares = torch.zeros(2, width, dtype=torch.float64)
    count = 0
    for vectors in teacher.sample():
        vectors = vectors.double().cpu()
        count += len(vectors)
        total += vectors.sum(0)
        squares += vectors.square().sum(0)
    mean = total / max(count, 1)
    variance = squares / max(count, 1) - mean.square()
    # Rounding: float32 vectors have a relative error of 1e-7 before they are squared.
    constant = variance <= 1e-10 * (squares / max(count, 1))
    return mean, torch.where(constant, 1.0, variance.clamp(min=0).sqrt())


def check_standardization(normalize: object, sampled: bool) -> None:
    """Check the option ``normalize_teacher``.

    Args:
        normalize: Its value.
        sampled: Whether the teacher has :meth:`TextTeacher.sample`.

    Raises:
        UserError: It is no boolean, or the teacher cannot be sampled.
    """
    if not isinstance(normalize, bool):
        raise UserError(
            f"criterion_conf.normalize_teacher is {normalize!r}; it must be true or "
            "false"
        )
    if normalize and not sampled:
        raise UserError(
            "criterion_conf.normalize_teacher needs teacher_store: the statistics are "
            "computed from stored vectors; set teacher_store to a folder"
        )
