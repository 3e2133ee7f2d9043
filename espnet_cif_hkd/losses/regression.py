"""Linguistic regression distillation: a decoder state against its PLM vector."""

import torch
from torch import Tensor

from espnet_cif_hkd.losses.contrastive import valid_tokens

REDUCTIONS = ("sum", "mean")


def regression_loss(
    student: Tensor, teacher: Tensor, lengths: Tensor, reduction: str = "sum"
) -> Tensor:
    """Squared distance of each token's state to its teacher vector (spec A 3.5).

    Args:
        student: (B, L, C), floating. What lies beyond ``lengths`` is never read.
        teacher: (B, L, C), floating; takes no gradient.
        lengths: (B,) integer, tokens of each utterance; N is their sum.
        reduction: over the C dimensions, "sum" as in the paper or "mean".

    Returns:
        (N,) losses, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError: shapes do not fit or ``reduction`` is unknown.
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
    """:func:`regression_loss` of tokens without padding: both inputs are (N, C)."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, but is {reduction!r}")
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        squares = (student.to(dtype) - teacher.detach().to(dtype)).square()
        return squares.sum(dim=-1) if reduction == "sum" else squares.mean(dim=-1)
