"""Integrate-and-fire for a stream: pieces of frames in, completed tokens out.

Names of shapes: as in :mod:`espnet_cif_hkd.cif.op`. A piece continues the running sum
of all pieces before it, so a token fires in the same frame as in the complete
utterance. A token that has fired never changes.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from espnet_cif_hkd.cif.op import (
    _ROUNDING,
    _TAIL_GUARD,
    _firing_frames,
    _firing_times,
)
from espnet_cif_hkd.cif.staircase import fire_tokens


@dataclass(frozen=True)
class FiringCache:
    """What firing keeps between two pieces.

    Attributes:
        total: Running sum of alpha, ``(B,)`` float64.
        partial: Weighted sum of the frames of the incomplete token, ``(B, D)``.
        n_frames: Valid frames so far, ``(B,)`` int64.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 3, 1), torch.full((1, 3), 0.5), torch.tensor([3])
        >>> _, cache = fire_piece(*one)
        >>> cache.total.tolist(), cache.partial.tolist(), cache.n_frames.tolist()
        ([1.5], [[0.5]], [3])
    """

    total: torch.Tensor
    partial: torch.Tensor
    n_frames: torch.Tensor


@dataclass(frozen=True)
class FiredPiece:
    """The tokens that a piece completes.

    Attributes:
        embeddings: ``(B, L, D)``, dtype of ``hs``; zero in padding.
        lengths: Number of tokens, ``(B,)`` int64.
        firing_times: In frames since the beginning of the stream, ``(B, L)`` float64;
            -1 in padding.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 3, 1), torch.full((1, 3), 0.5), torch.tensor([3])
        >>> fired, _ = fire_piece(*one)
        >>> fired.embeddings.tolist(), fired.firing_times.tolist()
        ([[[1.0]]], [[2.0]])
    """

    embeddings: torch.Tensor
    lengths: torch.Tensor
    firing_times: torch.Tensor


def fire_piece(
    hs: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    cache: FiringCache | None = None,
    last: bool = False,
    tail_threshold: float | None = 0.5,
) -> tuple[FiredPiece, FiringCache]:
    """Integrate the next frames of a stream.

    Joined, the tokens equal those of :func:`espnet_cif_hkd.cif.integrate_and_fire` for
    the complete utterances at inference. One difference: if alpha is NaN or infinite,
    tokens that fired before it stay; none follows.

    Args:
        hs: The next frames, ``(B, T, D)``, any floating dtype; T may be 0.
        alpha: Unscaled weights ``>= 0``, ``(B, T)``.
        lengths: Number of valid frames, ``(B,)`` integer. An utterance that ends
            before others has 0 in later pieces.
        cache: From the piece before; None for the first piece. It is not changed.
        last: Whether all utterances end with this piece. Then the tail may fire.
        tail_threshold: See :func:`espnet_cif_hkd.cif.integrate_and_fire`.

    Returns:
        The completed tokens, and the cache for the next piece.

    Source: arXiv 1905.11235, the CIF module; its integration is a recursion over
    frames.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 2, 1), torch.full((1, 2), 0.4), torch.tensor([2])
        >>> fired, cache = fire_piece(*one)
        >>> fired.lengths.tolist(), round(float(cache.total), 3)
        ([0], 0.8)
        >>> fired, cache = fire_piece(*one, cache, last=True)
        >>> [round(time, 3) for time in fired.firing_times[0].tolist()]
        [2.5, 4.0]
    """
    lengths = lengths.to(hs.device, torch.int64)
    wide = torch.promote_types(hs.dtype, torch.float32)
    if cache is None:
        cache = FiringCache(
            hs.new_zeros(hs.size(0), dtype=torch.float64),
            hs.new_zeros(hs.size(0), hs.size(2), dtype=wide),
            torch.zeros_like(lengths),
        )
    pad = torch.arange(hs.size(1), device=hs.device) >= lengths[:, None]
    alpha = alpha.double().masked_fill(pad, 0.0)
    # The running sum continues exactly. Integers are subtracted from it without
    # rounding: token 0 is the incomplete one.
    running = torch.cat([cache.total[:, None], alpha], dim=1).cumsum(dim=1)
    fired_before = _integer_part(cache.total)
    total = running[:, -1]
    n_full = _integer_part(total + _ROUNDING if last else total)
    n_new = (n_full - fired_before).clamp(min=0).long()
    # A frame of zeros holds the weight that is in the incomplete token already.
    cum = running - fired_before[:, None]  # (B, 1 + T)
    alpha = torch.cat([cum[:, :1], alpha], dim=1)
    frames = functional.pad(hs, (0, 0, 1, 0))
    n_tokens = int(n_new.max()) + 1 if n_new.numel() else 1
    fire_frame = _firing_frames(cum, n_tokens)
    # One token more than full ones: what is left for the next piece
    sums = fire_tokens(frames, cum, fire_frame, lengths + 1, n_new + 1)
    first = torch.zeros_like(sums)
    first[:, 0] = cache.partial
    sums = sums + first
    partial = sums.gather(1, n_new[:, None, None].expand(-1, 1, sums.size(2)))[:, 0]
    n_fired = n_new
    if last and tail_threshold is not None:
        rest = total - n_full
        fires = (rest > tail_threshold) & torch.isfinite(rest)
        n_fired = n_new + fires.long()
        divisor = torch.where(fires, rest + _TAIL_GUARD, torch.ones_like(rest))
        place = torch.arange(n_tokens, device=hs.device) == n_new[:, None]
        weight = torch.where(place, divisor[:, None], 1.0)  # (B, L)
        sums = sums / weight[..., None].to(sums.dtype)
    unused = torch.arange(n_tokens, device=hs.device) >= n_fired[:, None]
    times = _firing_times(cum.detach(), alpha.detach(), lengths + 1, fire_frame)
    times = (times - 1 + cache.n_frames[:, None]).masked_fill(unused, -1.0)
    most = int(n_fired.max()) if n_fired.numel() else 0
    piece = FiredPiece(
        sums.masked_fill(unused[..., None], 0.0)[:, :most].to(hs.dtype),
        n_fired,
        times[:, :most],
    )
    return piece, FiringCache(total, partial, cache.n_frames + lengths)


def _integer_part(total: torch.Tensor) -> torch.Tensor:
    """Floor, ``(B,)`` float64; 0 for NaN and infinity, which fire nothing."""
    return torch.floor(total.detach()).nan_to_num(0.0, 0.0, 0.0)
