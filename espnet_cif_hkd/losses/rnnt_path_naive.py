"""The best path of a lattice as a plain loop: the reference for tests."""

from torch import Tensor

Node = tuple[int, int]


def best_path_naive(
    logits: Tensor, targets: Tensor, n_frames: int, n_tokens: int, blank: int = 0
) -> tuple[float, list[Node], list[bool]]:
    """Like ``best_path`` for one utterance.

    Args:
        logits: (T, U + 1, V), floating; float64 for an exact result.
        targets: (U,) integer.
        n_frames: Frames of the utterance.
        n_tokens: Tokens of the utterance.
        blank: Id of the blank, from 0.

    Returns:
        Log-probability, the nodes (t, u), and whether each is left by a token.

    Example:
        >>> import torch
        >>> best_path_naive(torch.zeros(2, 1, 4), torch.zeros(0).long(), 2, 0)[1:]
        ([(0, 0), (1, 0)], [False, False])
    """
    logp = logits.log_softmax(-1)
    # Best way from the start to each node: score, nodes before it, kinds of arcs.
    best: dict[Node, tuple[float, list[Node], list[bool]]] = {(0, 0): (0.0, [], [])}
    for t in range(n_frames + 1):
        for u in range(n_tokens + 1):
            ways = []
            for start, emits in (((t - 1, u), False), ((t, u - 1), True)):
                if start not in best or start[0] >= n_frames:
                    continue
                token = int(targets[u - 1]) if emits else blank
                score, nodes, kinds = best[start]
                score += float(logp[start[0], start[1], token])
                ways.append((score, [*nodes, start], [*kinds, emits]))
            if ways:
                best[t, u] = max(ways, key=lambda way: way[0])
    return best[n_frames, n_tokens]
