"""The best path through the lattice of a transducer, and distillation at its nodes.

The lattice is that of :mod:`espnet_cif_hkd.losses.rnnt`: node (t, u) has seen t frames
and emitted u tokens. A path of an utterance has frames + tokens nodes; each is left by
an arc, a blank or the next token. All nodes of a diagonal t + u are one step of the
search, so it takes T + U steps for the complete batch, and as many to go back.

Source: Yang, Li and Woodland, arXiv 2110.03334, distil a transducer along the teacher's
one-best path. The search, and the choice of the K largest probabilities, are ours.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_cif_hkd.losses.rnnt_lattice import (
    arc_scores,
    checked_inputs,
    pick,
    without_padding,
    wrong_values,
)
from espnet_cif_hkd.losses.soft_labels import largest_probabilities, soft_label_loss


@dataclass(frozen=True)
class LatticePath:
    """A path of each utterance; N is the largest number of nodes.

    Attributes:
        frames: t of each node, (B, N) int64. Padding is 0.
        tokens: u of each node, (B, N) int64. Padding is 0.
        emits: Whether the node is left by token u + 1, not by a blank, (B, N) bool.
        lengths: Nodes of each utterance, (B,) int64: frames + tokens, or 0 if no path
            is possible.
        scores: Log-probability of each path, (B,) float64.

    Example:
        >>> one = torch.ones(1, 3).long()
        >>> two = torch.tensor([2])
        >>> LatticePath(one, one, one.bool(), two, torch.zeros(1)).valid
        tensor([[ True,  True, False]])
    """

    frames: Tensor
    tokens: Tensor
    emits: Tensor
    lengths: Tensor
    scores: Tensor

    @property
    def valid(self) -> Tensor:
        """The nodes that are no padding, (B, N) bool."""
        places = torch.arange(self.frames.size(1), device=self.lengths.device)
        return places < self.lengths[:, None]


@torch.no_grad()
def best_path(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
) -> LatticePath:
    """Most probable path that emits the targets.

    Args:
        logits: Output of the joint network before the softmax, (B, T, U + 1, V), any
            floating dtype. Padding may hold any value.
        targets: Token ids without blanks, (B, U) integer; padding may be any integer.
        logit_lengths: Frames of each utterance, (B,) integer, from 1 to T.
        target_lengths: Tokens of each utterance, (B,) integer, from 0 to U.
        blank: Id of the blank; negative ids count from V.

    Returns:
        The paths. Of two arcs with equal scores the blank is taken.

    Raises:
        ValueError: Shapes do not fit, or on the CPU a length or a token is out of
            range; on a GPU such an utterance has no path.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 2, 3)  # one token in two frames
        >>> logits[0, 1, 0, 2] = 5.0  # token 2 is likely in the second
        >>> lengths = torch.tensor([2]), torch.tensor([1])
        >>> path = best_path(logits, torch.tensor([[2]]), *lengths)
        >>> list(zip(path.frames[0].tolist(), path.tokens[0].tolist()))
        [(0, 0), (1, 0), (1, 1)]
    """
    targets, frames, tokens, blank = checked_inputs(
        logits, targets, logit_lengths, target_lengths, blank
    )
    wrong = wrong_values(logits, targets, frames, tokens, blank)
    arcs = arc_scores(logits, targets, blank)
    arcs = arcs.masked_fill(wrong[:, None, None], -torch.inf)
    return best_path_of_arcs(arcs, frames, tokens)


@torch.no_grad()
def best_path_of_arcs(arcs: Tensor, frames: Tensor, tokens: Tensor) -> LatticePath:
    """:func:`best_path` of known log-probabilities of arcs.

    Args:
        arcs: Log-probabilities of the blank and of the next token at each node,
            (2, B, T, U + 1), as ``arc_scores`` returns them; padding may hold any
            value.
        frames: Frames of each utterance, (B,) int64.
        tokens: Tokens of each utterance, (B,) int64.

    Example:
        >>> arcs = torch.full((2, 1, 2, 2), -1.0)
        >>> one, two = torch.tensor([1]), torch.tensor([2])
        >>> best_path_of_arcs(arcs, two, one).scores
        tensor([-3.], dtype=torch.float64)
    """
    arcs = without_padding(arcs.double(), frames, tokens)
    diagonal = torch.arange(arcs.size(2) + arcs.size(3) - 1, device=arcs.device)
    u = torch.arange(arcs.size(3), device=arcs.device)
    rows = diagonal[:, None] - u  # frames of the nodes of a diagonal
    blanks, labels = (pick(kind, rows, u).transpose(0, 1) for kind in arcs)
    by_token, scores = _search(blanks, labels, frames, tokens)
    return _trace(by_token, scores, frames, tokens)


def _search(
    blanks: Tensor, labels: Tensor, frames: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether the best path reaches a node by a token, and the scores of best paths.

    Args:
        blanks, labels: Arcs that leave the nodes of each diagonal, (D, B, U + 1). Node
            u of diagonal d is (d - u, u).
        frames, tokens: (B,) int64.

    Returns:
        (D, B, U + 1) bool for the nodes of diagonals 1 to D, and (B,) float64.
    """
    n_diagonals, n_batch, n_nodes = blanks.shape
    labels = F.pad(labels[:, :, :-1], (1, 0), value=-torch.inf)
    here = blanks.new_full((n_batch, n_nodes), -torch.inf)
    here[:, 0] = 0.0
    by_token = blanks.new_zeros(blanks.shape, dtype=torch.bool)
    scores = blanks.new_full((n_batch,), -torch.inf)
    last = frames + tokens
    for step in range(n_diagonals):
        left = F.pad(here[:, :-1], (1, 0), value=-torch.inf) + labels[step]
        here = here + blanks[step]
        by_token[step] = left > here
        here = torch.maximum(left, here)
        ends = here.gather(1, tokens.clamp(0, n_nodes - 1)[:, None])[:, 0]
        scores = torch.where(last == step + 1, ends, scores)
    return by_token, scores


def _trace(
    by_token: Tensor, scores: Tensor, frames: Tensor, tokens: Tensor
) -> LatticePath:
    """Follow the paths from their ends."""
    n_steps, _, n_nodes = by_token.shape
    possible = scores > -torch.inf
    lengths = torch.where(possible, frames + tokens, 0)
    place = tokens.clamp(0, n_nodes - 1)
    emits, nodes = [], []
    for step in range(n_steps - 1, -1, -1):
        emitted = by_token[step].gather(1, place[:, None])[:, 0] & (step < lengths)
        place = place - emitted.long()
        emits.append(emitted)
        nodes.append(place)
    used = torch.arange(n_steps, device=lengths.device) < lengths[:, None]
    us = torch.stack(nodes[::-1], 1).masked_fill(~used, 0)
    ts = torch.arange(n_steps, device=lengths.device) - us
    return LatticePath(
        ts.masked_fill(~used, 0), us, torch.stack(emits[::-1], 1), lengths, scores
    )


def soft_labels(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """A teacher's distributions: ``softmax(logits / temperature)``.

    Args:
        logits: (N, V), any floating dtype.
        temperature: Above 0.
        top_k: Number of largest probabilities to keep, scaled to sum 1; None: all.

    Returns:
        Probabilities (N, V) and None, or (N, K) and their ids (N, K) int64. Float32,
        or float64 for float64 logits.

    Example:
        >>> soft_labels(torch.tensor([[0.0, 0.0, -9.0]]), top_k=2)
        (tensor([[0.5000, 0.5000]]), tensor([[0, 1]]))
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.detach().to(dtype)
        if top_k is None or top_k >= logits.size(-1):
            return (logits / temperature).softmax(-1), None
        return largest_probabilities(logits, top_k, temperature)


def path_distillation_loss(
    logits: Tensor,
    probabilities: Tensor,
    ids: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Cross-entropy of a student's distribution under a teacher's, at each node.

    The memory is that of the N nodes, not that of the lattice.

    Args:
        logits: The student's, (N, V), any floating dtype. -inf excludes a token.
        probabilities: The teacher's, (N, V), or (N, K) with ``ids``; no gradient.
        ids: Token ids of ``probabilities``, (N, K) int64; None: all of V.
        temperature: Divisor of the student's logits. The loss is not multiplied by its
            square, so its gradient shrinks with it.

    Returns:
        (N,) losses in nats, float64 for float64 logits and float32 for all others, also
        under autocast.

    Raises:
        ValueError: Shapes do not fit.

    Example:
        >>> import torch
        >>> certain = torch.tensor([[1.0, 0.0]])
        >>> path_distillation_loss(torch.zeros(1, 2), certain).exp()
        tensor([2.])
    """
    n_nodes, n_vocab = logits.shape
    width = n_vocab if ids is None else ids.size(-1)
    fits = probabilities.shape == (n_nodes, width)
    if not fits or (ids is not None and ids.shape != (n_nodes, width)):
        raise ValueError(
            f"probabilities must be (N, V), or (N, K) with ids, for logits (N, V) "
            f"{tuple(logits.shape)}, but are {tuple(probabilities.shape)} with ids "
            f"{None if ids is None else tuple(ids.shape)}"
        )
    if ids is None:
        ids = torch.arange(n_vocab, device=logits.device).expand(n_nodes, -1)
    return soft_label_loss(logits, ids, probabilities, temperature)
