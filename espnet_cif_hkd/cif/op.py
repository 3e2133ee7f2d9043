"""Integrate-and-fire for a batch, without a loop over frames.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    acoustic frames, padded to the longest utterance
D    size of a frame's vector
L    fired tokens, padded to the largest number in the batch
c    running sum of alpha, in float64: frame t covers ``[c_{t-1}, c_t]``
===  =====================================================================

Token ``k`` (from 0) owns the interval ``[k, k + 1]`` of the running sum. The weight of
frame ``t`` in this token is the overlap of both intervals. Several firings in one frame
need no special case. :mod:`espnet_cif_hkd.cif.staircase` computes the weighted sums.
"""

from dataclasses import dataclass

import torch

from espnet_cif_hkd.cif.segments import segment_sums, utterance_weights
from espnet_cif_hkd.cif.staircase import fire_tokens

# A running sum this close below an integer counts as the integer. The difference is the
# rounding error of float32 alphas that should sum to the integer.
_ROUNDING = 1e-6
# The original adds this to the divisor of the tail. It changes the tenth digit, so it
# stays for exact parity.
_TAIL_GUARD = 1e-10


@dataclass
class CIFOutput:
    """Result of :func:`integrate_and_fire`.

    Attributes:
        embeddings: Fired vectors, ``(B, L, D)``, dtype of ``hs``; zero in padding.
        lengths: Number of fired tokens, ``(B,)`` int64.
        quantity: Sum of the unscaled alpha over valid frames, ``(B,)``, float32 or
            float64. The quantity loss compares it with the number of tokens.
        alpha: Weights after masking and (in training) scaling, ``(B, T)`` float64;
            zero in padding.
        frame_lengths: Number of valid frames, ``(B,)`` integer.
        unscaled: Weights before scaling, ``(B, T)`` float64; zero in padding.

    Example:
        >>> import torch
        >>> fired = integrate_and_fire(
        ...     torch.ones(1, 4, 2), torch.full((1, 4), 0.5), torch.tensor([4])
        ... )
        >>> fired.embeddings.shape, fired.lengths.tolist(), fired.quantity.tolist()
        (torch.Size([1, 2, 2]), [2], [2.0])
    """

    embeddings: torch.Tensor
    lengths: torch.Tensor
    quantity: torch.Tensor
    alpha: torch.Tensor
    frame_lengths: torch.Tensor
    unscaled: torch.Tensor

    @property
    def firing_times(self) -> torch.Tensor:
        """Times at which tokens fire, in frames, ``(B, L)`` float64; -1 in padding.

        Frame ``t`` spans ``[t, t + 1]``; times have fractions. A token that the tail
        completes fires at the end of the last valid frame. Computed on each access.
        :class:`espnet_cif_hkd.cif.times.FrameTimes` converts frames to seconds.

        Example:
            >>> import torch
            >>> alpha = torch.tensor([[0.5, 1.0, 1.25]])
            >>> fired = integrate_and_fire(
            ...     torch.ones(1, 3, 2), alpha, torch.tensor([3])
            ... )
            >>> fired.firing_times.tolist()
            [[1.5, 2.4, 3.0]]
        """
        alpha = self.alpha.detach()
        cum = alpha.cumsum(dim=1)
        n_tokens = self.embeddings.size(1)
        fire_frame = _firing_frames(cum, n_tokens)
        times = _firing_times(cum, alpha, self.frame_lengths, fire_frame)
        positions = torch.arange(n_tokens, device=times.device)
        return times.masked_fill(positions >= self.lengths[:, None], -1.0)


def integrate_and_fire(
    hs: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor | None = None,
    tail_threshold: float | None = 0.5,
    max_target_length: int | None = None,
    segment_ends: torch.Tensor | None = None,
) -> CIFOutput:
    """Sum frames by weight; each full unit of weight fires one vector.

    With ``target_lengths`` (training), alpha is scaled so that exactly this number of
    tokens fires. Without it (inference), the number of tokens is the integer part of
    the sum, plus one if the rest is above ``tail_threshold``. This last vector is
    divided by its weight, so that it also holds one unit. If the sum is NaN or
    infinite, nothing fires at inference, and ``quantity`` shows it.

    The running sum is float64, also under autocast. There are no second derivatives:
    ``create_graph=True`` in a backward pass raises RuntimeError.

    Args:
        hs: Frames, ``(B, T, D)``, any floating dtype. Sums of frames use float32, or
            float64 for float64 input. The content of padded frames has no effect.
        alpha: Unscaled weights ``>= 0``, ``(B, T)``, any floating dtype.
        lengths: Number of valid frames, ``(B,)`` integer.
        target_lengths: Number of tokens to fire, ``(B,)`` integer.
        tail_threshold: The rest of alpha that fires one more token at inference must
            be greater than this; None (null in YAML) disables this token.
        max_target_length: L, if the caller knows it. It must be at least the largest
            number of tokens; a larger value adds padding. It avoids one
            synchronisation with the device.
        segment_ends: With ``target_lengths``: the last frame of each token but the
            last, ``(B, U)`` int64 with U >= L - 1, any value in padding. Alpha is
            scaled to 1 in the segment of each token, with 0.001 more for each frame.
            The last token has at least the last frame. An utterance whose frames are
            negative, do not rise or leave none for the last token is scaled as without
            them. None: alpha is scaled over the utterance.

    Returns:
        Fired vectors, their numbers, the quantity and the firing times.

    Raises:
        ValueError: If the shapes do not fit.

    Source: arXiv 1905.11235: the CIF module, and among its supporting strategies the
    scaling strategy (training) and tail handling (inference). ``segment_ends`` is ours.

    Example:
        >>> import torch
        >>> hs = torch.eye(3).unsqueeze(0)
        >>> alpha = torch.tensor([[0.5, 0.75, 0.5]])
        >>> fired = integrate_and_fire(hs, alpha, torch.tensor([3]))
        >>> fired.embeddings.tolist()
        [[[0.5, 0.5, 0.0], [0.0, 0.3333333432674408, 0.6666666865348816]]]
        >>> [round(time, 3) for time in fired.firing_times[0].tolist()]
        [1.667, 3.0]
    """
    _check_shapes(hs, alpha, lengths, target_lengths, segment_ends)
    n_frames = hs.size(1)
    lengths = lengths.to(hs.device)
    frame_pad = (
        torch.arange(n_frames, device=hs.device)[None, :] >= lengths[:, None]
    )  # (B, T)
    unscaled = alpha.double().masked_fill(frame_pad, 0.0)
    wide = torch.promote_types(alpha.dtype, torch.float32)
    quantity = unscaled.sum(dim=1).to(wide)  # (B,)

    if target_lengths is not None:
        token_lengths = target_lengths.to(device=hs.device, dtype=torch.int64)
        # The tokens of an alpha of zeros are zero vectors.
        alpha64 = utterance_weights(unscaled, token_lengths)
        cum = alpha64.cumsum(dim=1)  # (B, T)
        if segment_ends is not None and n_frames > 0:
            ends = segment_ends.to(hs.device)
            sums, weights, used = segment_sums(unscaled, lengths, ends, token_lengths)
            cum = torch.where(used, sums, cum)
            alpha64 = torch.where(used, weights, alpha64)
        tail = None
    else:
        alpha64 = unscaled
        cum = alpha64.cumsum(dim=1)
        token_lengths, tail = _free_lengths(cum, tail_threshold)

    n_tokens = max_target_length
    if n_tokens is None:
        n_tokens = int(token_lengths.max().item()) if token_lengths.numel() else 0
    fire_frame = _firing_frames(cum, n_tokens)  # (B, L)
    embeddings = fire_tokens(hs, cum, fire_frame, lengths, token_lengths)
    if tail is not None:
        is_last = torch.arange(n_tokens, device=hs.device) == token_lengths[:, None] - 1
        weight = torch.where(is_last, tail[:, None], 1.0)  # (B, L)
        embeddings = embeddings / weight[..., None].to(embeddings.dtype)
    return CIFOutput(
        embeddings=embeddings.to(hs.dtype),
        lengths=token_lengths,
        quantity=quantity,
        alpha=alpha64,
        frame_lengths=lengths,
        unscaled=unscaled,
    )


def _check_shapes(
    hs: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor | None,
    segment_ends: torch.Tensor | None,
) -> None:
    if hs.dim() != 3 or alpha.shape != hs.shape[:2]:
        raise ValueError(
            "integrate_and_fire needs hs (B, T, D) and alpha (B, T), got "
            f"{tuple(hs.shape)} and {tuple(alpha.shape)}"
        )
    if lengths.shape != hs.shape[:1]:
        raise ValueError(f"lengths must be ({hs.size(0)},), got {tuple(lengths.shape)}")
    if target_lengths is not None and target_lengths.shape != hs.shape[:1]:
        raise ValueError(
            f"target_lengths must be ({hs.size(0)},), got {tuple(target_lengths.shape)}"
        )
    if segment_ends is None:
        return
    if target_lengths is None:
        raise ValueError("segment_ends needs target_lengths: the tokens are not known")
    if segment_ends.dim() != 2 or len(segment_ends) != hs.size(0):
        raise ValueError(
            f"segment_ends must be ({hs.size(0)}, U), got {tuple(segment_ends.shape)}"
        )


def _free_lengths(
    cum: torch.Tensor, tail_threshold: float | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Number of tokens without a target, ``(B,)``, and weight of the last one."""
    if cum.size(1) == 0:
        return cum.new_zeros(cum.size(0), dtype=torch.int64), None
    total = cum[:, -1]
    with torch.no_grad():
        # NaN and infinity have no integer part: such an utterance fires nothing.
        n_full = torch.floor(total + _ROUNDING).nan_to_num(0.0, 0.0, 0.0)
    if tail_threshold is None:
        return n_full.long(), None
    rest = total - n_full  # (B,), may be -1e-6 after rounding up
    fires = (rest > tail_threshold) & torch.isfinite(rest)
    # 1 for utterances without a tail: the division changes nothing there
    tail = torch.where(fires, rest + _TAIL_GUARD, torch.ones_like(rest))
    return n_full.long() + fires.long(), tail


def _firing_frames(cum: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Frame in which each token is completed, ``(B, L)`` int64.

    T for tokens that the sum does not complete (tail or rounding).
    """
    ends = torch.arange(1, n_tokens + 1, device=cum.device, dtype=cum.dtype)
    ends = ends.expand(cum.size(0), n_tokens).contiguous()  # (B, L)
    return torch.searchsorted(cum.detach(), ends)


def _firing_times(
    cum: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    fire_frame: torch.Tensor,
) -> torch.Tensor:
    """Time at which each token is complete, in frames: ``(B, L)`` float64."""
    if cum.size(1) == 0:
        return cum.new_zeros(fire_frame.shape)
    last = (lengths.long() - 1).clamp(min=0)[:, None]
    fire_frame = torch.minimum(fire_frame, last)
    weight = alpha.gather(1, fire_frame)  # (B, L)
    before = cum.gather(1, fire_frame) - weight
    ends = torch.arange(1, fire_frame.size(1) + 1, device=cum.device)
    inside = (ends - before) / weight.clamp(min=torch.finfo(cum.dtype).tiny)
    times = fire_frame + inside.clamp(min=0.0, max=1.0)
    return torch.minimum(times, lengths[:, None].to(times.dtype))
