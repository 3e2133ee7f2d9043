"""The contrastive loss as a plain loop: the reference for tests."""

import torch
from torch import Tensor

from espnet_cif_hkd.losses.contrastive import NORM_EPS


def contrastive_loss_naive(
    student: Tensor,
    teacher: Tensor,
    lengths: Tensor,
    temperature: float,
    negative_ids: list[list[int]],
) -> tuple[Tensor, float]:
    """Like ``contrastive_loss`` with given negatives, in the dtype of ``student``.

    Args:
        student, teacher: (B, L, C), floating.
        lengths: (B,) integer, number of tokens.
        temperature: divisor of the cosines.
        negative_ids: for each of the N valid tokens, in batch order, the indices of
            its negatives.

    Returns:
        (N,) losses and the share of tokens without a closer negative.

    Example:
        >>> import torch
        >>> vectors = torch.eye(3)[None]
        >>> losses, nearest = contrastive_loss_naive(
        ...     vectors, vectors, torch.tensor([3]), 1.0, [[1, 2], [0, 2], [0, 1]]
        ... )
        >>> losses, nearest
        (tensor([0.5514, 0.5514, 0.5514]), 1.0)
    """
    students, teachers = [], []
    for b, length in enumerate(lengths.tolist()):
        for i in range(length):
            students.append(student[b, i])
            teachers.append(teacher[b, i])

    losses, n_nearest = [], 0
    for n, (vector, own) in enumerate(zip(students, teachers, strict=True)):
        positive = _cosine(vector, own) / temperature
        negatives = [
            _cosine(vector, teachers[m]) / temperature
            for m in negative_ids[n]
            if m != n
        ]
        total = torch.stack([positive, *negatives]).logsumexp(dim=0)
        losses.append(total - positive)
        bar = positive.item() + NORM_EPS / temperature
        n_nearest += all(other.item() <= bar for other in negatives)
    if not losses:
        return student.new_zeros(0), 0.0
    return torch.stack(losses), n_nearest / len(losses)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    length_a = (a * a).sum().sqrt().clamp_min(NORM_EPS)
    length_b = (b * b).sum().sqrt().clamp_min(NORM_EPS)
    return (a * b).sum() / (length_a * length_b)
