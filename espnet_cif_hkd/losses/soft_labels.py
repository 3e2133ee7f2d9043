"""Cross-entropy against the K most probable labels of a language model.

Shapes and names
----------------
===  =====================================================================
N    rows
…    rows of any shape: units, or frames that have a unit
V    classes of the student
K    labels of a row with their probabilities
===  =====================================================================

A label with probability 0 has no effect, whatever its id is. So a row with fewer than K
labels is filled with such labels.

Source: after the abstract of arXiv 2110.10429; losses and temperatures are ours.
"""

import math

import torch
from torch import Tensor


def soft_label_loss(
    logits: Tensor,
    ids: Tensor,
    probabilities: Tensor,
    temperature: float = 1.0,
    square: bool = False,
) -> Tensor:
    """Return the cross-entropy of each row, ``-sum_k p_k log softmax(logits)[id_k]``.

    The temperature divides the logits of the student. The gradient of a row is
    ``(softmax(logits / temperature) - p) / temperature`` for probabilities with the sum
    1: a higher temperature makes it smaller. ``square`` multiplies loss and gradient by
    ``temperature ** 2``, so that the size of the gradient hardly depends on the
    temperature.

    Args:
        logits: (…, V), any floating dtype.
        ids: Classes of the labels, (…, K) int64.
        probabilities: (…, K); get no gradient. The sum of a row need not be 1.
        temperature: Greater than 0.
        square: Whether to multiply by ``temperature ** 2``.

    Returns:
        (…), float64 for float64 logits and float32 for all others, also under autocast.

    Example:
        >>> import torch
        >>> ids, probabilities = torch.tensor([[2, 0]]), torch.tensor([[0.75, 0.25]])
        >>> soft_label_loss(torch.zeros(1, 4), ids, probabilities)
        tensor([1.3863])
    """
    if temperature != 1.0:
        logits = logits.to(precise(logits)) / temperature
    loss = soft_cross_entropy(log_probabilities(logits), ids, probabilities)
    return loss * temperature**2 if square else loss


def largest_probabilities(
    logits: Tensor, top_k: int, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the K most probable classes of ``softmax(logits / temperature)``.

    The softmax over the K largest logits is that over all, renormalised.

    Args:
        logits: (…, V), float32 or float64.
        top_k: At most V.
        temperature: Greater than 0.

    Returns:
        Their probabilities with the sum 1, the largest first, and their ids; (…, K)
        each.

    Example:
        >>> largest_probabilities(torch.tensor([[0.0, 0.0, -9.0]]), 2)
        (tensor([[0.5000, 0.5000]]), tensor([[0, 1]]))
    """
    largest, ids = logits.topk(top_k, -1)
    return (largest / temperature).softmax(-1), ids


def soft_cross_entropy(logp: Tensor, ids: Tensor, probabilities: Tensor) -> Tensor:
    """Return the cross-entropy of log-probabilities against labels.

    Args:
        logp: (…, V).
        ids: (…, K) int64.
        probabilities: (…, K); get no gradient.

    Returns:
        (…), dtype of ``logp``.

    Example:
        >>> import torch
        >>> logp = torch.zeros(1, 4).log_softmax(-1)
        >>> soft_cross_entropy(logp, torch.tensor([[2, 0]]), torch.tensor([[0.5, 0.5]]))
        tensor([1.3863])
    """
    picked = logp.gather(-1, ids)
    weights = probabilities.detach().to(picked)
    # 0 times a log-probability of minus infinity is NaN.
    return -(weights * picked.masked_fill(weights == 0, 0.0)).sum(-1)


def interpolation_term(
    logits: Tensor,
    targets: Tensor,
    ids: Tensor,
    probabilities: Tensor,
    smoothing: float = 0.0,
) -> Tensor:
    """Return what label interpolation adds to the hard loss of a row.

    With hard loss H (:func:`espnet_cif_hkd.losses.token.score_tokens`) and soft loss S
    (:func:`soft_label_loss`), ``(1 - c) H + c S = H + c (S - H)``, and this function
    returns S - H. Both targets have the sum 1, so that the softmax cancels:
    ``S - H = sum_v (y_v - p_v) logits_v + entropy of y``, with the smoothed hard target
    y. There is no second softmax over the vocabulary.

    Args:
        logits: (N, V), any floating dtype.
        targets: Hard targets, (N,) int64.
        ids: (N, K) int64.
        probabilities: (N, K) with the sum 1; get no gradient.
        smoothing: Probability that the hard target gives to the other V - 1 classes.

    Returns:
        (N,), float64 for float64 logits and float32 for all others.

    Example:
        >>> import torch
        >>> logits, targets = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
        >>> ids, probabilities = torch.tensor([[1, 0]]), torch.tensor([[0.75, 0.25]])
        >>> interpolation_term(logits, targets, ids, probabilities)
        tensor([0.7500])
    """
    dtype = precise(logits)
    others = max(logits.size(-1) - 1, 1)
    share = smoothing / others
    hard = (1 - smoothing - share) * logits.gather(-1, targets[:, None]).to(dtype)
    term = hard.squeeze(-1)
    if smoothing:
        entropy = -sum(
            n * p * math.log(p) for n, p in ((1, 1 - smoothing), (others, share)) if p
        )
        term = term + share * logits.sum(-1, dtype=dtype) + entropy
    picked = logits.gather(-1, ids).to(dtype)
    return term - (probabilities.detach().to(dtype) * picked).sum(-1)


def log_probabilities(logits: Tensor) -> Tensor:
    """Return the log-softmax of the last dimension in float32 or float64.

    Example:
        >>> import torch
        >>> log_probabilities(torch.zeros(2, dtype=torch.bfloat16))
        tensor([-0.6931, -0.6931])
    """
    return torch.log_softmax(logits, dim=-1, dtype=precise(logits))


def precise(values: Tensor) -> torch.dtype:
    """Return float64 for float64 values, and float32 for all others.

    Example:
        >>> import torch
        >>> precise(torch.zeros(1, dtype=torch.float16))
        torch.float32
    """
    return torch.promote_types(values.dtype, torch.float32)
