"""Statistics of a teacher's targets, for normalisation and the trivial predictor."""

import logging

import torch
from torch import Tensor

from espnet_cif_hkd.distill.teacher_statistics import TeacherStatistics
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.base import SpeechTeacher
from espnet_cif_hkd.teachers.speech.stored import StoredSpeechTeacher

# Frames of the sample; the mean of a dimension is known to about 1 % of its deviation.
_SAMPLE = 1 << 15
# Smallest deviation of a dimension, relative to the largest: noise is not amplified.
_SMALLEST = 1e-3


class TargetStatistics(TeacherStatistics):
    """Mean, deviation and median of each dimension of a teacher.

    They are buffers, so a resumed training has those it began with, even if the store
    has grown since. All processes compute them from the same sample of the store.

    Args:
        width: C, width of a teacher frame.
        normalize: Whether :meth:`normalized` changes targets.
        median: Whether the constant predictor is the median, which is the best one for
            L1, or the mean.
    """

    mean: Tensor
    std: Tensor
    constant: Tensor

    def __init__(self, width: int, normalize: bool, median: bool):
        super().__init__()
        self.normalize = normalize
        self._median = median
        self._known = False
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.zeros(width))  # 0: not computed yet
        self.register_buffer("constant", torch.zeros(width))

    def prepare(self, teacher: SpeechTeacher, name: str) -> None:
        """Compute the statistics, unless they are known.

        Args:
            teacher: The teacher; without a store they stay unknown.
            name: Name of the teacher, for messages.

        Raises:
            UserError: The store is empty, or does not fit the teacher.
        """
        if self._prepared:
            return
        self._known = isinstance(teacher, StoredSpeechTeacher)
        if isinstance(teacher, StoredSpeechTeacher):
            teacher.open()  # compares the header with the teacher
            if not self.keeps(self.std, teacher):
                self._compute(teacher, name)
        self._prepared = True

    def _compute(self, teacher: StoredSpeechTeacher, name: str) -> None:
        reader = teacher.open()
        arrays = {
            key: torch.from_numpy(array)
            for key, array in reader.sample(_SAMPLE).items()
        }
        vectors = teacher.payload.decode(arrays)["vectors"]  # (N, C)
        if not len(vectors):
            raise UserError(
                f"teacher {name}: its store is empty; fill it before the training"
            )
        precise = vectors.double()
        std = precise.std(0, correction=0)
        largest = std.max().clamp(min=torch.finfo(torch.float32).tiny)
        self.mean.copy_(precise.mean(0))
        self.std.copy_(std.clamp(min=_SMALLEST * largest))
        constant = vectors.median(0).values if self._median else self.mean
        self.constant.copy_(constant)
        logging.info(
            "teacher %s: deviations of its %d dimensions are %.3g to %.3g, from %d "
            "stored frames",
            *(name, len(std), float(std.min()), float(std.max()), len(vectors)),
        )

    def normalized(self, targets: Tensor) -> Tensor:
        """Return normalised targets.

        Args:
            targets: (N, r·C): r frames beside each other.
        """
        if not self.normalize:
            return targets
        parts = targets.unflatten(-1, (-1, len(self.mean)))
        return ((parts - self.mean) / self.std).flatten(-2)

    def trivial(self, targets: Tensor) -> Tensor:
        """Return the best constant prediction of normalised targets, (r·C,).

        It is computed from the store, or from ``targets`` if there is no store.
        """
        if not self._known:
            return targets.mean(0)
        copies = targets.size(-1) // len(self.mean)
        return self.normalized(self.constant.repeat(copies)[None])[0]
