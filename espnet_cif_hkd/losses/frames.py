"""Losses between frames of an encoder and frames of a speech teacher."""

import torch
from torch import Tensor

FRAME_LOSSES = ("l1", "l2", "cosine", "l1_cosine")


def frame_loss(student: Tensor, teacher: Tensor, mask: Tensor, kind: str) -> Tensor:
    """Sum of the losses of all valid frames.

    Args:
        student: (B, T, C), any floating dtype. Padding has no effect.
        teacher: (B, T, C), any floating dtype; gets no gradient. Padding has no effect.
        mask: (B, T) bool, true for frames with a target.
        kind: ``l1``, ``l2``, ``cosine`` or ``l1_cosine``; see :func:`frame_losses`.

    Returns:
        A scalar, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError: Shapes do not fit, or ``kind`` is unknown.

    Example:
        >>> import torch
        >>> student, teacher = torch.ones(1, 3, 4), torch.zeros(1, 3, 4)
        >>> frame_loss(student, teacher, torch.tensor([[True, True, False]]), "l1")
        tensor(2.)
    """
    if student.shape != teacher.shape or student.shape[:2] != mask.shape:
        raise ValueError(
            "student and teacher must be (B, T, C) and mask (B, T), but are "
            f"{tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(mask.shape)}"
        )
    return frame_losses(student[mask], teacher[mask], kind).sum()


def frame_losses(student: Tensor, teacher: Tensor, kind: str) -> Tensor:
    """Loss of each frame, for frames without padding.

    Args:
        student: (N, C), any floating dtype.
        teacher: (N, C), any floating dtype; gets no gradient.
        kind: ``l1``: mean over the C dimensions of the absolute difference. ``l2``:
            mean of the squared difference. ``cosine``: 1 - cosine of the vectors.
            ``l1_cosine``: the sum of the first and the third.

    Returns:
        (N,), float64 for float64 inputs and float32 for all others, also under
        autocast.

    Raises:
        ValueError: ``kind`` is unknown.

    Example:
        >>> import torch
        >>> frame_losses(torch.full((2, 4), 3.0), torch.ones(2, 4), "l2")
        tensor([4., 4.])
    """
    if kind not in FRAME_LOSSES:
        raise ValueError(f"the loss must be one of {FRAME_LOSSES}, but is {kind!r}")
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = student.to(dtype), teacher.detach().to(dtype)
        if kind == "l1":
            return (student - teacher).abs().mean(-1)
        if kind == "l2":
            return (student - teacher).square().mean(-1)
        angle = 1 - torch.nn.functional.cosine_similarity(student, teacher, dim=-1)
        if kind == "cosine":
            return angle
        return (student - teacher).abs().mean(-1) + angle
