"""The spikes of CTC's best path, without a transcript.

Names of shapes: as in :mod:`espnet_cif_hkd.losses.ctc_guide`.
"""

import math

import torch
from torch import Tensor

from espnet_cif_hkd.losses.ctc_guide import likeliest_frames


def _labels(
    logp: Tensor, hlens: Tensor, blank: int, threshold: float | None
) -> tuple[Tensor, Tensor]:
    """Return the token of each frame and its log-probability, ``(B, T)`` each.

    Arguments: see :func:`ctc_free_spikes`. The token may be the blank.
    """
    if threshold is None:
        score, label = logp.max(dim=2)
    else:
        tokens = torch.arange(logp.size(2), device=logp.device) != blank
        score, label = logp.masked_fill(~tokens, -torch.inf).max(dim=2)
        is_token = logp[..., blank] < math.log1p(-threshold)
        label = torch.where(is_token, label, torch.full_like(label, blank))
    frames = torch.arange(logp.size(1), device=logp.device)
    pad = frames >= hlens.to(logp.device)[:, None]
    return score, label.masked_fill(pad, blank)


@torch.no_grad()
def ctc_free_spikes(
    logp: Tensor, hlens: Tensor, blank: int = 0, threshold: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return the frame of each token of CTC's best path, without a transcript.

    A token of several frames has the one with its highest probability.

    Args:
        logp: Log-probabilities, ``(B, T, V)``; padding may hold any value.
        hlens: Valid frames, ``(B,)`` integer.
        blank: Index of the blank.
        threshold: A frame has a token if all tokens together have more than this
            probability, then the likeliest one: with many tokens the blank can be the
            likeliest label of a frame that surely has a token. None: a frame has its
            likeliest label, the best path.

    Returns:
        Frames, ``(B, U)`` int64, -1 in padding; number of tokens, ``(B,)`` int64.

    Example:
        >>> import torch
        >>> path = torch.tensor([[0, 2, 2, 0, 2, 1]])
        >>> logp = torch.nn.functional.one_hot(path, 3).float().log_softmax(-1)
        >>> spikes, lengths = ctc_free_spikes(logp, torch.tensor([6]))
        >>> spikes.tolist(), lengths.tolist()
        ([[1, 4, 5]], [3])
    """
    if logp.size(1) == 0:
        none = torch.zeros(len(logp), dtype=torch.int64, device=logp.device)
        return none.new_zeros(len(logp), 0), none
    score, label = _labels(logp, hlens, blank, threshold)
    before = torch.nn.functional.pad(label[:, :-1], (1, 0), value=blank)
    begins = (label != blank) & (label != before)
    number = begins.cumsum(dim=1) - 1  # (B, T), the token to which a frame belongs
    number = number.masked_fill(label == blank, -1)
    lengths = begins.sum(dim=1)
    scores = score[:, None].expand(-1, int(lengths.max()), -1)  # (B, U, T)
    return likeliest_frames(number, scores), lengths


def dense_free_spikes(
    logp: Tensor, hlens: Tensor, blank: int = 0, threshold: float | None = None
) -> Tensor:
    """As :func:`ctc_free_spikes`, without operations that a graph does not have.

    Needs memory for T · T numbers.

    Args:
        logp: ``(B, T, V)``, T at least 1.
        hlens: Valid frames, ``(B,)`` integer.
        blank: Index of the blank.
        threshold: As in :func:`ctc_free_spikes`.

    Returns:
        Whether a frame is a spike, ``(B, T)`` bool.

    Example:
        >>> import torch
        >>> path = torch.tensor([[0, 2, 2, 0, 2, 1]])
        >>> logp = torch.nn.functional.one_hot(path, 3).float().log_softmax(-1)
        >>> dense_free_spikes(logp, torch.tensor([6])).long().tolist()
        [[0, 1, 0, 0, 1, 1]]
    """
    score, label = _labels(logp, hlens, blank, threshold)
    frames = torch.arange(logp.size(1), device=logp.device)
    before = torch.cat([torch.full_like(label[:, :1], blank), label[:, :-1]], dim=1)
    number = ((label != blank) & (label != before)).long().cumsum(dim=1)
    # A frame that no other frame of the same token beats, and no earlier one equals
    same = (number[:, :, None] == number[:, None]) & (label != blank)[:, None]
    earlier = frames[None, :] < frames[:, None]  # (T, T), of the other frame
    better = score[:, None] > score[:, :, None]
    better = better | ((score[:, None] == score[:, :, None]) & earlier)
    return (label != blank) & ~(same & better).any(dim=2)
