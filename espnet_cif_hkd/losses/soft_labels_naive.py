"""The losses of soft labels as plain loops: the reference for tests."""

import math

import torch
from torch import Tensor


def soft_label_loss_naive(
    logits: Tensor,
    ids: Tensor,
    probabilities: Tensor,
    temperature: float = 1.0,
    square: bool = False,
) -> Tensor:
    """Compute :func:`espnet_cif_hkd.losses.soft_label_loss` row by row, in float64.

    The labels of a row become a distribution over all V classes first.

    Returns:
        (N,) float64.

    Example:
        >>> import torch
        >>> ids, probabilities = torch.tensor([[2, 0]]), torch.tensor([[0.75, 0.25]])
        >>> soft_label_loss_naive(torch.zeros(1, 4), ids, probabilities)
        tensor([1.3863], dtype=torch.float64)
    """
    found = []
    for row, labels, weights in zip(logits.double(), ids, probabilities, strict=True):
        scaled = row / temperature
        # Shifted by the maximum: exp must not overflow.
        shifted = scaled - scaled.max().detach()
        total = shifted.exp().sum()
        target = torch.zeros_like(row)
        for label, weight in zip(labels.tolist(), weights.tolist(), strict=True):
            target[label] += weight
        loss = torch.zeros((), dtype=torch.float64)
        for v in range(len(row)):
            if target[v] > 0:
                loss = loss - target[v] * (shifted[v] - total.log())
        found.append(loss * temperature**2 if square else loss)
    return torch.stack(found) if found else logits.double().sum(-1)


def interpolated_loss_naive(
    logits: Tensor,
    targets: Tensor,
    ids: Tensor,
    probabilities: Tensor,
    share: float,
    smoothing: float = 0.0,
) -> Tensor:
    """Compute ``(1 - share) * hard + share * soft`` row by row, in float64.

    ``hard`` is the divergence of the prediction from the smoothed target, ``soft`` the
    cross-entropy against the labels.

    Returns:
        (N,) float64.

    Example:
        >>> import torch
        >>> ids, certain = torch.tensor([[2]]), torch.tensor([[1.0]])
        >>> interpolated_loss_naive(torch.zeros(1, 4), ids[0], ids, certain, 0.5)
        tensor([1.3863], dtype=torch.float64)
    """
    soft = soft_label_loss_naive(logits, ids, probabilities)
    found = []
    for row, target, other in zip(logits.double(), targets.tolist(), soft, strict=True):
        logp = row.log_softmax(-1)
        hard = torch.zeros((), dtype=torch.float64)
        for v in range(len(row)):
            y = 1 - smoothing if v == target else smoothing / (len(row) - 1)
            if y > 0:
                hard = hard + y * (math.log(y) - logp[v])
        found.append((1 - share) * hard + share * other)
    return torch.stack(found)
