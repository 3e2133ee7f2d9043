"""Integrate-and-fire as a loop anyone can check by eye: the oracle of the tests."""

import torch


def integrate_and_fire_naive(
    hs: torch.Tensor,
    alpha: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor | None = None,
    tail_threshold: float | None = 0.5,
) -> tuple[list[torch.Tensor], list[list[float]]]:
    """Fire utterance by utterance and frame by frame.

    Arguments as in :func:`espnet_cif_hkd.cif.integrate_and_fire`; float64 input is
    expected, since every number is kept in the dtype it comes in.

    Returns:
        For each utterance its fired vectors, ``(L_b, D)``, and the time in frames at
        which each fired.

    Source: spec A 1.4, with as many firings in a frame as its weight holds.
    """
    vectors: list[torch.Tensor] = []
    times: list[list[float]] = []
    for b in range(hs.size(0)):
        n_frames = int(lengths[b])
        weights = alpha[b, :n_frames]
        target = None if target_lengths is None else int(target_lengths[b])
        if target is not None:
            weights = weights * target / weights.sum()
        fired, fired_at = _fire_utterance(hs[b, :n_frames], weights, target)
        token, filled = fired.pop()  # the token still open at the end
        if target is not None:
            # Rounding may leave the last token a hair short of one, or a hair over.
            if len(fired) < target:
                fired.append((token, filled))
                fired_at.append(float(n_frames))
        elif tail_threshold is not None and filled.item() > tail_threshold:
            # The original guards the division so, and it shows in gradients.
            fired.append((token / (filled + 1e-10), filled))
            fired_at.append(float(n_frames))
        rows = [vector for vector, _ in fired]
        vectors.append(torch.stack(rows) if rows else hs.new_zeros(0, hs.size(2)))
        times.append(fired_at)
    return vectors, times


def _fire_utterance(
    frames: torch.Tensor, weights: torch.Tensor, target: int | None
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[float]]:
    """Return every full token and, last, the one still open; and the firing times."""
    done: list[tuple[torch.Tensor, torch.Tensor]] = []
    fired_at: list[float] = []
    token = frames.new_zeros(frames.size(1))
    filled = weights.new_zeros(())
    for t, (frame, weight) in enumerate(zip(frames, weights, strict=True)):
        left = weight  # what this frame still has to give
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
