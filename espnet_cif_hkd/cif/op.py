"""Integrate-and-fire for a whole batch at once, without a loop over frames.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    acoustic frames, padded to the longest utterance
D    size of a frame's vector
L    fired tokens, padded to the utterance with most of them
c    running sum of alpha, in float64: frame t covers ``[c_{t-1}, c_t]``
===  =====================================================================

Token ``k`` (from 0) owns the interval ``[k, k + 1]`` of the running sum, and frame
``t`` gives it the length of the overlap of both intervals, so several firings inside
one frame need no special case. :mod:`espnet_cif_hkd.cif.staircase` sums the overlaps.
"""

from dataclasses import dataclass

import torch

from espnet_cif_hkd.cif.staircase import fire_tokens

# A running sum this near below an integer has reached it: the difference is rounding
# of the float32 alphas that were meant to sum to the integer.
_ROUNDING = 1e-6
# The original's guard when it divides the tail by its weight, which is over the
# threshold anyway; kept because it shows in the tenth digit.
_TAIL_GUARD = 1e-10


@dataclass
class CIFOutput:
    """What integrate-and-fire returns.

    Attributes:
        embeddings: Fired vectors, ``(B, L, D)``, dtype of ``hs``; zero where padded.
        lengths: Fired tokens of each utterance, ``(B,)`` int64.
        quantity: Sum of the unscaled alpha over valid frames, ``(B,)``, float32 or
            float64: what the quantity loss compares with the number of tokens.
        alpha: The masked and, in training, scaled weights that fired, ``(B, T)``
            float64.
        frame_lengths: Valid frames of each utterance, ``(B,)``.
    """

    embeddings: torch.Tensor
    lengths: torch.Tensor
    quantity: torch.Tensor
    alpha: torch.Tensor
    frame_lengths: torch.Tensor

    @property
    def firing_times(self) -> torch.Tensor:
        """When each token fires, ``(B, L)`` float64, in frames and their fractions.

        Frame ``t`` spans ``[t, t + 1]``. A token completed by the tail fires at the
        end of the utterance. -1 where padded. Computed when it is asked for.
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
) -> CIFOutput:
    """Integrate frames by their weight and fire a vector whenever one unit is full.

    With ``target_lengths`` (training) alpha is scaled so that exactly that many
    tokens fire. Without it (inference) the number of tokens is the integer part of
    the sum, plus one when the rest is over ``tail_threshold``; that last, partial
    vector is divided by its weight so that it, too, holds one unit.

    Args:
        hs: Frames, ``(B, T, D)``, any floating dtype. Sums are kept in float32, or in
            float64 for float64 input. Padded frames may hold anything.
        alpha: Unscaled weights ``>= 0``, ``(B, T)``.
        lengths: Valid frames of each utterance, ``(B,)`` integer.
        target_lengths: Tokens to fire in each utterance, ``(B,)`` integer.
        tail_threshold: Least rest of alpha that fires a last token at inference;
            None (null in YAML) fires none.
        max_target_length: L, where the caller knows it (at least the largest target
            or fired length, more only pads). It spares a read-back from the device.

    Returns:
        The fired vectors with lengths, quantity and firing times.

    Raises:
        ValueError: If the shapes do not fit.

    Source: spec A 1.2 (scaling), A 1.4 (closed form), A 1.5 (tail).

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
    _check_shapes(hs, alpha, lengths, target_lengths)
    n_frames = hs.size(1)
    lengths = lengths.to(hs.device)
    frame_pad = (
        torch.arange(n_frames, device=hs.device)[None, :] >= lengths[:, None]
    )  # (B, T)
    alpha64 = alpha.double().masked_fill(frame_pad, 0.0)
    total = alpha64.sum(dim=1)  # (B,)
    quantity = total.to(torch.promote_types(alpha.dtype, torch.float32))

    if target_lengths is not None:
        token_lengths = target_lengths.to(device=hs.device, dtype=torch.int64)
        # An all-zero alpha cannot be scaled; its tokens are zero vectors.
        divisor = torch.where(total > 0, total, torch.ones_like(total))
        alpha64 = alpha64 * (token_lengths / divisor)[:, None]
        cum = alpha64.cumsum(dim=1)  # (B, T)
        tail = None
    else:
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
    )


def _check_shapes(
    hs: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor | None,
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


def _free_lengths(
    cum: torch.Tensor, tail_threshold: float | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Count what fires without a target: ``(B,)`` tokens, ``(B,)`` rest or None."""
    if cum.size(1) == 0:
        return cum.new_zeros(cum.size(0), dtype=torch.int64), None
    total = cum[:, -1]
    with torch.no_grad():
        whole = torch.floor(total + _ROUNDING)
    if tail_threshold is None:
        return whole.long(), None
    rest = total - whole  # (B,), may be -1e-6 after rounding up
    fires = rest > tail_threshold
    # 1 for utterances without a tail, so that the division below leaves them alone
    tail = torch.where(fires, rest + _TAIL_GUARD, torch.ones_like(rest))
    return whole.long() + fires.long(), tail


def _firing_frames(cum: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Frame in which each token is completed, ``(B, L)`` int64.

    T for tokens that the sum does not complete: the tail, or rounding.
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
    """When each token is completed, in frames: ``(B, L)`` float64."""
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
