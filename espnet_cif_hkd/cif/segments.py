"""Scaling of alpha over the utterance, and in the segment of each token.

Shapes and names: as in :mod:`espnet_cif_hkd.cif.op`.

Scaling over the utterance gives the right number of tokens, wherever they fire. With
segments each token gets the frames after the end of the token before it and up to its
own end, and alpha is scaled to 1 in this segment.
"""

import torch
from torch import Tensor

# What each frame has in its segment besides alpha: a segment whose alpha is 0
# everywhere is the mean of its frames.
_FLOOR = 1e-3


def utterance_weights(alpha: Tensor, token_lengths: Tensor) -> Tensor:
    """Return alpha scaled to the number of tokens, ``(B, T)``.

    Args:
        alpha: Unscaled weights, ``(B, T)`` float64, 0 in padding. An alpha of zeros
            cannot be scaled and stays.
        token_lengths: Number of tokens, ``(B,)`` int64.

    Example:
        >>> import torch
        >>> alpha = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
        >>> utterance_weights(alpha, torch.tensor([4])).tolist()
        [[1.0, 3.0]]
    """
    total = alpha.sum(dim=1)  # (B,)
    divisor = torch.where(total > 0, total, torch.ones_like(total))
    return alpha * (token_lengths / divisor)[:, None]


def segment_sums(
    alpha: Tensor, lengths: Tensor, ends: Tensor, token_lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the running sum of alpha that is scaled to 1 in each segment.

    Args:
        alpha: Unscaled weights, ``(B, T)`` float64, 0 in padding.
        lengths: Number of valid frames, ``(B,)`` integer.
        ends: Last frame of each token but the last, ``(B, U)`` int64; any value in
            padding. The last token ends with the last valid frame, which it does not
            share: a token that ends there ends a frame earlier.
        token_lengths: Number of tokens, ``(B,)`` int64, at most U + 1.

    Returns:
        The running sum, ``(B, T)``, exactly k at the end of token k - 1; its weights,
        ``(B, T)``; and whether the segments can be used, ``(B, 1)`` bool: each token
        has a frame.

    Example:
        >>> import torch
        >>> alpha = torch.tensor([[0.499, 0.0, 0.249, 0.749]], dtype=torch.float64)
        >>> sums, _, used = segment_sums(
        ...     alpha, torch.tensor([4]), torch.tensor([[0]]), torch.tensor([2])
        ... )
        >>> [round(value, 3) for value in sums[0].tolist()], used.tolist()
        ([1.0, 1.001, 1.251, 2.0], [[True]])
    """
    n_frames = alpha.size(1)
    frames = torch.arange(n_frames, device=alpha.device)
    last = lengths[:, None] - 1  # (B, 1)
    known = torch.arange(ends.size(1), device=alpha.device) < token_lengths[:, None] - 1
    inside = (ends <= last) | ~known
    ends = torch.where(known, torch.minimum(ends, last - 1), last)
    ends = torch.cat([ends, last], dim=1)  # (B, U + 1)
    before = torch.nn.functional.pad(ends[:, :-1], (1, 0), value=-1)
    rising = (ends > before) | torch.nn.functional.pad(~known, (1, 0), value=False)
    used = rising.all(dim=1) & (ends >= 0).all(dim=1) & inside.all(dim=1)
    used = used & (token_lengths > 0) & (token_lengths <= ends.size(1))
    ends = ends.clamp(0, n_frames - 1)

    floored = (alpha + _FLOOR).masked_fill(frames > last, 0.0)
    cum = floored.cumsum(dim=1)
    reached = cum.gather(1, ends)  # (B, U + 1)
    start = torch.nn.functional.pad(reached[:, :-1], (1, 0))
    size = reached - start
    size = torch.where(size > 0, size, torch.ones_like(size))
    # A frame belongs to the token after all tokens that end before it.
    rising_ends = ends.cummax(dim=1).values
    token = torch.searchsorted(rising_ends, frames.expand_as(cum).contiguous())
    token = torch.minimum(token, (token_lengths[:, None] - 1).clamp(min=0))
    sums = token + (cum - start.gather(1, token)) / size.gather(1, token)
    weights = sums.diff(dim=1, prepend=sums.new_zeros(len(sums), 1))
    return sums, weights, used[:, None]


def segment_weights(
    alpha: Tensor, lengths: Tensor, ends: Tensor, token_lengths: Tensor
) -> Tensor:
    """Return alpha scaled to 1 in each segment, ``(B, T)`` float64, 0 in padding.

    Arguments are those of :func:`segment_sums`, with alpha of any floating dtype and
    any values in padding. Utterances whose segments cannot be used keep their alpha.

    Example:
        >>> import torch
        >>> alpha = torch.tensor([[0.2, 0.0, 0.3, 0.3]])
        >>> weights = segment_weights(
        ...     alpha, torch.tensor([4]), torch.tensor([[0]]), torch.tensor([2])
        ... )
        >>> [round(value, 3) for value in weights[0].tolist()]
        [1.0, 0.002, 0.499, 0.499]
    """
    frames = torch.arange(alpha.size(1), device=alpha.device)
    alpha = alpha.double().masked_fill(frames >= lengths[:, None], 0.0)
    if alpha.size(1) == 0:
        return alpha
    _, weights, used = segment_sums(alpha, lengths, ends, token_lengths)
    return torch.where(used, weights, alpha)


def dense_segment_weights(alpha: Tensor, lengths: Tensor, is_end: Tensor) -> Tensor:
    """As :func:`segment_weights`, without operations that a graph does not have.

    Needs memory for T · T numbers.

    Args:
        alpha: ``(B, T)``, T at least 1.
        lengths: ``(B,)`` integer.
        is_end: Whether a token other than the last ends with a frame, ``(B, T)`` bool;
            False in padding.

    Example:
        >>> import torch
        >>> alpha, is_end = torch.tensor([[0.2, 0.0, 0.3]]), torch.tensor([[1, 0, 0]])
        >>> weights = dense_segment_weights(alpha, torch.tensor([3]), is_end.bool())
        >>> [round(value, 3) for value in weights[0].tolist()]
        [1.0, 0.003, 0.997]
    """
    frames = torch.arange(alpha.size(1), device=alpha.device)
    pad = frames >= lengths[:, None]  # (B, T)
    alpha = alpha.double().masked_fill(pad, 0.0)
    is_last = frames == lengths[:, None] - 1
    late = is_end & is_last
    following = torch.cat([late[:, 1:], torch.zeros_like(late[:, :1])], dim=1)
    unusable = (following & is_end).any(dim=1) | (late & (frames == 0)).any(dim=1)
    is_end = (is_end & ~late) | following
    token = is_end.long().cumsum(dim=1) - is_end.long()  # (B, T)
    same = (token[:, :, None] == token[:, None]).to(alpha.dtype)  # (B, T, T)
    floored = (alpha + _FLOOR).masked_fill(pad, 0.0)
    size = (same @ floored[..., None]).squeeze(-1)
    shares = floored / size.masked_fill(pad, 1.0)
    return torch.where(unusable[:, None] | (lengths <= 0)[:, None], alpha, shares)
