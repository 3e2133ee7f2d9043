"""Linguistic regression distillation: a decoder state against its teacher vector."""

import torch
from torch import Tensor

from espnet_cif_hkd.losses.contrastive import valid_tokens

REDUCTIONS = ("sum", "mean")


def regression_loss(
    student: Tensor, teacher: Tensor, lengths: Tensor, reduction: str = "sum"
) -> Tensor:
    """Squared distance between the state of each token and its teacher vector.

    Args:
        student: (B, L, C), any floating dtype. Padding has no effect.
        teacher: (B, L, C), any floating dtype; gets no gradient.
        lengths: (B,) integer, number of tokens; N is their sum.
        reduction: over the C dimensions, "sum" as in the paper, or "mean".

    Returns:
        (N,) losses, float64 for float64 inputs and float32 for all others, also under
        autocast.

    Raises:
        ValueError: shapes do not fit or ``reduction`` is unknown.

    Source: linguistic regression distillation of arXiv 2301.13003.

    Example:
        >>> import torch
        >>> student, teacher = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
        >>> regression_loss(student, teacher, torch.tensor([2, 1]))
        tensor([4., 4., 4.])
    """
    if student.shape != teacher.shape or student.dim() != 3:
        raise ValueError(
            "student and teacher must both be (B, L, C), but are "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    valid = valid_tokens(student, lengths)
    return token_regression_loss(student[valid], teacher[valid], reduction)


def token_regression_loss(
    student: Tensor, teacher: Tensor, reduction: str = "sum"
) -> Tensor:
    """:func:`regression_loss` of tokens without padding: both inputs are (N, C).

    Example:
        >>> import torch
        >>> token_regression_loss(torch.ones(2, 4), torch.zeros(2, 4), "mean")
        tensor([1., 1.])
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, but is {reduction!r}")
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        squares = (student.to(dtype) - teacher.detach().to(dtype)).square()
        return squares.sum(dim=-1) if reduction == "sum" else squares.mean(dim=-1)
