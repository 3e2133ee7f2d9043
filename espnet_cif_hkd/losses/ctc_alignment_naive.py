"""CTC's forced alignment as a plain search: the reference for tests."""

from collections.abc import Sequence

from torch import Tensor


def ctc_alignment_naive(
    logp: Tensor, tokens: Sequence[int], blank: int = 0
) -> list[int] | None:
    """Compute :func:`espnet_cif_hkd.losses.ctc_alignment.ctc_alignment` by a loop.

    Each state keeps its best path.

    Args:
        logp: Log-probabilities of one utterance without padding, ``(T, V)``.
        tokens: Target tokens.
        blank: Index of the blank.

    Returns:
        Place of the token of each frame, -1 for blanks; None if there are too few
        frames.

    Example:
        >>> import torch
        >>> path = torch.tensor([0, 2, 2, 0, 1])
        >>> logp = torch.nn.functional.one_hot(path, 3).float().log_softmax(-1)
        >>> ctc_alignment_naive(logp, [2, 1])
        [-1, 0, 0, -1, 1]
    """
    states = [blank]
    for token in tokens:
        states += [token, blank]
    best = {s: (float(logp[0, states[s]]), [s]) for s in range(min(2, len(states)))}
    for frame in logp[1:]:
        old, best = best, {}
        for s, state in enumerate(states):
            before = [s, s - 1]
            if s >= 3 and s % 2 and state != states[s - 2]:
                before.append(s - 2)
            reached = [(old[p][0], p) for p in before if p in old]
            if reached:
                score, place = max(reached, key=lambda item: item[0])
                best[s] = (score + float(frame[state]), [*old[place][1], s])
    ends = [s for s in (len(states) - 1, len(states) - 2) if s in best]
    if not ends:
        return None
    path = best[max(ends, key=lambda s: best[s][0])][1]
    return [s // 2 if s % 2 else -1 for s in path]
