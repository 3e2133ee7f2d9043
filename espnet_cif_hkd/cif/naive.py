"""Integrate-and-fire as a plain loop over frames: the reference for tests."""

import torch


def integrate_and_fire_naive(
    hs: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor | None = None,
    tail_threshold: float | None = 0.5,
    segment_ends: torch.Tensor | None = None,
) -> tuple[list[torch.Tensor], list[list[float]]]:
    """Fire utterance by utterance and frame by frame.

    Arguments: see :func:`espnet_cif_hkd.cif.integrate_and_fire`. All numbers keep the
    dtype of the input, so the input should be float64.

    Returns:
        For each utterance the fired vectors, ``(L_b, D)``, and their firing times in
        frames.

    Source: arXiv 1905.11235. One frame fires as often as its weight allows.

    Example:
        >>> import torch
        >>> hs = torch.eye(3, dtype=torch.float64)[None]
        >>> alpha = torch.tensor([[0.5, 0.75, 0.75]], dtype=torch.float64)
        >>> vectors, times = integrate_and_fire_naive(hs, alpha, torch.tensor([3]))
        >>> vectors[0].tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]
        >>> [round(time, 3) for time in times[0]]
        [1.667, 3.0]
    """
    vectors: list[torch.Tensor] = []
    times: list[list[float]] = []
    for b in range(hs.size(0)):
        n_frames = int(lengths[b])
        weights = alpha[b, :n_frames]
        target = None if target_lengths is None else int(target_lengths[b])
        if target is not None:
            ends = [] if segment_ends is None else segment_ends[b].tolist()
            # The last token does not share the last frame.
            ends = [min(e, n_frames - 2) if e < n_frames else -1 for e in ends]
            ends = [*ends[: max(0, target - 1)], n_frames - 1]
            if segment_ends is not None and _have_frames(ends, target):
                weights = _scale_segments(weights, ends)
            else:
                weights = weights * target / weights.sum()
        fired, fired_at = _fire_utterance(hs[b, :n_frames], weights, target)
        token, filled = fired.pop()  # the token still open at the end
        if target is not None:
            # Rounding may leave the last token slightly below or above one.
            if len(fired) < target:
                fired.append((token, filled))
                fired_at.append(float(n_frames))
        elif tail_threshold is not None and filled.item() > tail_threshold:
            # The original adds this to the divisor; it changes the gradients.
            fired.append((token / (filled + 1e-10), filled))
            fired_at.append(float(n_frames))
        rows = [vector for vector, _ in fired]
        vectors.append(torch.stack(rows) if rows else hs.new_zeros(0, hs.size(2)))
        times.append(fired_at)
    return vectors, times


def _have_frames(ends: list[int], n_tokens: int) -> bool:
    """Whether each token has a frame: the last frames of all tokens rise."""
    starts = [-1, *ends[:-1]]
    rise = all(a < b for a, b in zip(starts, ends, strict=True))
    return len(ends) == n_tokens and rise


def _scale_segments(weights: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Scale weights to 1 up to each end; a frame has 0.001 beside its weight."""
    parts = []
    first = 0
    for end in ends:
        part = weights[first : end + 1] + 1e-3
        parts.append(part / part.sum())
        first = end + 1
    return torch.cat(parts)


def _fire_utterance(
    frames: torch.Tensor, weights: torch.Tensor, target: int | None
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[float]]:
    """Return all full tokens, then the incomplete one, and the firing times."""
    done: list[tuple[torch.Tensor, torch.Tensor]] = []
    fired_at: list[float] = []
    token = frames.new_zeros(frames.size(1))
    filled = weights.new_zeros(())
    for t, (frame, weight) in enumerate(zip(frames, weights, strict=True)):
        left = weight  # weight of this frame that is not used yet
        while (filled + left).item() >= 1 and (target is None or len(done) < target):
            need = 1.0 - filled
            done.append((token + need * frame, filled + need))
            left = left - need
            fired_at.append(t + 1 - left.item() / weight.item())
            token = torch.zeros_like(token)
            filled = torch.zeros_like(filled)
        token = token + left * frame
        filled = filled + left
    done.append((token, filled))
    return done, fired_at
