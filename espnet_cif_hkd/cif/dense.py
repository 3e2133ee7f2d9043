"""Integrate-and-fire as a matrix product, without loops, for exported graphs.

The weight of frame t in token k is the overlap of ``[c_{t-1}, c_t]`` and ``[k, k +
1]``, where c is the running sum of alpha: ``relu(min(c_t, k + 1) - max(c_{t-1}, k))``.
All weights of an utterance are a matrix ``(T, L)``, so the operation needs memory for
T · L numbers. :func:`espnet_cif_hkd.cif.integrate_and_fire` needs T + L, but its
operations have no counterpart in ONNX. Names of shapes are the same here.
"""

from typing import Any, NamedTuple

import torch

from espnet_cif_hkd.cif.op import _ROUNDING, _TAIL_GUARD


class DenseFiring(NamedTuple):
    """Result of :func:`fire_densely`.

    Attributes:
        embeddings: Fired vectors, ``(B, L, D)``, dtype of ``hs``; zero in padding. L is
            at least 1.
        lengths: Number of fired tokens, ``(B,)`` int64.
        times: Times at which tokens fire, in frames, ``(B, L)`` float64; -1 in padding.

    Example:
        >>> import torch
        >>> fired = fire_densely(
        ...     torch.ones(1, 4, 2), torch.full((1, 4), 0.5), torch.tensor([4])
        ... )
        >>> fired.embeddings.shape, fired.lengths.tolist(), fired.times.tolist()
        (torch.Size([1, 2, 2]), [2], [[2.0, 4.0]])
    """

    embeddings: torch.Tensor
    lengths: torch.Tensor
    times: torch.Tensor


def fire_densely(
    hs: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    tail_threshold: float | None = 0.5,
) -> DenseFiring:
    """Fire as :func:`espnet_cif_hkd.cif.integrate_and_fire` does at inference.

    For inference only: there is no scaling to a known number of tokens. The running sum
    is float64. The weights are float32 and lose no digits with the length of the
    utterance: the integer part of the sum is subtracted before.

    Args:
        hs: Frames, ``(B, T, D)``, T at least 1. The content of padding has no effect.
        alpha: Weights ``>= 0``, ``(B, T)``.
        lengths: Number of valid frames, ``(B,)`` integer.
        tail_threshold: As in :func:`espnet_cif_hkd.cif.integrate_and_fire`.

    Returns:
        Fired vectors, their numbers and times. If alpha is NaN or infinite, nothing
        fires.

    Source: arXiv 1905.11235, the CIF module.

    Example:
        >>> import torch
        >>> hs = torch.eye(3).unsqueeze(0)
        >>> alpha = torch.tensor([[0.5, 0.75, 0.5]])
        >>> fired = fire_densely(hs, alpha, torch.tensor([3]))
        >>> fired.embeddings.tolist()
        [[[0.5, 0.5, 0.0], [0.0, 0.3333333432674408, 0.6666666865348816]]]
    """
    pad = torch.arange(hs.size(1), device=hs.device) >= lengths[:, None]  # (B, T)
    hs = hs.masked_fill(pad[..., None], 0.0)
    alpha = alpha.double().masked_fill(pad, 0.0)
    # A graph has no exception for NaN: such an utterance has no weights.
    usable = alpha.sum(dim=1, keepdim=True).abs() < torch.inf
    alpha = torch.where(usable, alpha, torch.zeros_like(alpha))
    cum = alpha.cumsum(dim=1)
    total = cum[:, -1]
    n_full = torch.floor(total + _ROUNDING)
    rest = total - n_full
    fires = torch.zeros_like(rest, dtype=torch.bool)
    if tail_threshold is not None:
        fires = rest > tail_threshold
    n_tokens = n_full.long() + fires.long()  # (B,)

    # One token at least: many operations of a graph fail without a row.
    n_slots: Any = n_tokens.max().clamp(min=1)  # a tensor, for the tracer
    token = torch.arange(n_slots, device=hs.device)  # (L,)
    wide = torch.promote_types(hs.dtype, torch.float32)
    whole = torch.floor(cum)
    part = (cum - whole).to(wide)  # (B, T)
    # (B, T, L), the share of the token that the frames up to t fill
    filled = whole.to(wide)[..., None] - token.to(wide)  # integers: exact
    filled = filled + part[..., None]
    filled = filled.clamp(0.0, 1.0)
    first = torch.zeros_like(filled[:, :1])
    shares = filled - torch.cat([first, filled[:, :-1]], dim=1)
    sums = shares.transpose(1, 2) @ hs.to(wide)  # (B, L, D)
    is_tail = (token == n_full[:, None]) & fires[:, None]  # (B, L)
    weight = torch.where(is_tail, (rest + _TAIL_GUARD)[:, None], 1.0)
    unused = token >= n_tokens[:, None]
    sums = (sums / weight[..., None].to(wide)).masked_fill(unused[..., None], 0.0)
    times = _times(filled, cum, alpha, lengths).masked_fill(unused, -1.0)
    return DenseFiring(sums.to(hs.dtype), n_tokens, times)


def _times(
    filled: torch.Tensor,
    cum: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Time at which each token is complete, in frames: ``(B, L)`` float64."""
    last = (lengths.long() - 1).clamp(min=0)[:, None]
    frame = torch.minimum((filled < 1.0).long().sum(dim=1), last)  # (B, L)
    weight = alpha.gather(1, frame)
    before = cum.gather(1, frame) - weight
    ends = torch.arange(1, filled.size(2) + 1, device=filled.device)
    inside = (ends - before) / weight.clamp(min=torch.finfo(cum.dtype).tiny)
    times = frame + inside.clamp(min=0.0, max=1.0)
    return torch.minimum(times, lengths[:, None].to(times.dtype))
