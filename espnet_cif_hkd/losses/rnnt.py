"""The transducer loss: minus the log-probability of all paths through a lattice.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    frames, padded
U    target tokens, padded
V    vocabulary, with the blank
===  =====================================================================

Node (t, u) of the lattice has seen t frames and emitted u tokens. From it, a blank
leads to (t + 1, u), and token u + 1 to (t, u + 1). Paths lead from (0, 0) to the
utterance's own (frames, tokens). All nodes of a diagonal t + u depend on the diagonal
before it only, so the recursion takes T + U steps for the complete batch, forward
and backward variables in the same step.

The vocabulary is read twice, in blocks: before the recursion for two log-probabilities
a node, and in the backward pass for the gradient. So the only tensor of the size of
the logits is the gradient.
"""

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_cif_hkd.losses.rnnt_lattice import (
    arc_scores,
    blocks,
    checked_inputs,
    next_tokens,
    pick,
    without_padding,
    wrong_values,
)

_REDUCTIONS = ("none", "mean", "sum")
_BACKENDS = ("auto", "torch", "torchaudio")


def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "none",
    backend: str = "auto",
) -> Tensor:
    """Transducer loss of each utterance, in nats.

    Arguments have the order of torchaudio's function of this name. The softmax is
    float32 (float64 for float64 logits), the recursion float64, also under autocast.
    Padding may hold any value and gets no gradient. An utterance may have more tokens
    than frames. The backward pass allocates one tensor of the size of the logits, their
    gradient. There are no second derivatives: ``create_graph=True`` in a backward pass
    raises RuntimeError.

    Args:
        logits: Output of the joint network before the softmax, (B, T, U + 1, V), any
            floating dtype. -inf excludes a token.
        targets: Token ids without blanks, (B, U) integer; padding may be any integer.
        logit_lengths: Frames of each utterance, (B,) integer, from 1 to T.
        target_lengths: Tokens of each utterance, (B,) integer, from 0 to U.
        blank: Id of the blank; negative ids count from V.
        reduction: ``none``; ``sum`` or ``mean`` over the utterances.
        backend: ``torch``: the implementation described here. ``torchaudio``: the
            operator of torchaudio, for float32 and float16, without most of the
            promises above: padding must be finite, float16 is not computed in float32.
            ``auto``: torch.

    Returns:
        (B,), or a scalar; float32, or float64 for float64 logits. An utterance without
        a possible path has the loss inf and the gradient zero.

    Raises:
        ValueError: Shapes do not fit, or a length or a token is out of range. Values on
            a GPU are not read: a wrong one makes the loss of its utterance NaN.
        RuntimeError: ``backend`` is torchaudio, which is missing or has no operator.

    Source: Graves, arXiv 1211.3711.

    Example:
        >>> import torch
        >>> lengths = torch.tensor([2]), torch.tensor([1])
        >>> loss = rnnt_loss(torch.zeros(1, 2, 2, 4), torch.tensor([[3]]), *lengths)
        >>> bool(loss.exp().isclose(torch.tensor(4.0**3 / 2)))  # two paths of 3 arcs
        True
    """
    inputs = checked_inputs(logits, targets, logit_lengths, target_lengths, blank)
    if reduction not in _REDUCTIONS:
        raise ValueError(
            f"reduction must be one of {_REDUCTIONS}, but is {reduction!r}"
        )
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {_BACKENDS}, but is {backend!r}")
    losses: Tensor
    if backend == "torchaudio":
        losses = _by_torchaudio(logits, *inputs)
    else:
        losses = _Loss.apply(logits, *inputs)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def _by_torchaudio(
    logits: Tensor, targets: Tensor, frames: Tensor, tokens: Tensor, blank: int
) -> Tensor:
    """Losses (B,) by the operator of torchaudio."""
    try:
        torchaudio = importlib.import_module("torchaudio")
        assert torch.ops.torchaudio.rnnt_loss_forward
    except (ImportError, OSError, AttributeError) as error:
        raise RuntimeError(
            "rnnt_loss: this installation of torchaudio has no operator for backend "
            f"'torchaudio', use backend='torch' ({error})"
        ) from error
    # The operator does not accept more frames or tokens than the longest utterance has.
    n_frames, n_tokens = int(frames.max()), int(tokens.max())
    losses: Tensor = torchaudio.functional.rnnt_loss(
        logits[:, :n_frames, : n_tokens + 1].contiguous(),
        targets[:, :n_tokens].int().contiguous(),
        frames.int(),
        tokens.int(),
        blank=blank,
        reduction="none",
    )
    return losses


class _Loss(torch.autograd.Function):
    """Losses (B,) of logits (B, T, U + 1, V)."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        logit_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
    ) -> Tensor:
        losses, arcs = _losses_and_arcs(
            logits,
            targets,
            logit_lengths,
            target_lengths,
            blank,
            bool(ctx.needs_input_grad[0]),
        )
        ctx.save_for_backward(logits, targets, arcs)
        ctx.blank = blank
        return losses

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None, None, None]:
        # As in contrastive_loss: torch's once_differentiable would not raise in
        # torch.autograd.grad.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "rnnt_loss has no second derivative: call backward or "
                "torch.autograd.grad without create_graph"
            )
        logits, targets, arcs = ctx.saved_tensors
        scaled = arcs * above.to(arcs.dtype)[:, None, None]
        return _gradient(logits, targets, scaled, ctx.blank), None, None, None, None


# torch.compile does not look into custom operators: the recursion is a loop whose
# length is that of the batch.
@torch.library.custom_op("espnet_cif_hkd::rnnt_losses", mutates_args=())
def _losses_and_arcs(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    needs_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Return losses (B,) and posteriors of arcs (2, B, T, U + 1), blanks first.

    The second is empty without ``needs_grad``. Both are float32 or float64.
    """
    wrong = wrong_values(logits, targets, logit_lengths, target_lengths, blank)
    with torch.autocast(logits.device.type, enabled=False):
        logp = arc_scores(logits, targets, blank)
        lattice = _Lattice(logp, logit_lengths, target_lengths)
        total, posteriors = lattice.scores(needs_grad, wrong)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return -total.to(dtype), posteriors.to(dtype)


@_losses_and_arcs.register_fake
def _(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    needs_grad: bool,
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    shape = (2, *logits.shape[:3]) if needs_grad else (0, *logits.shape[:3])
    return logits.new_empty(logits.size(0), dtype=dtype), logits.new_empty(
        shape, dtype=dtype
    )


@torch.library.custom_op("espnet_cif_hkd::rnnt_gradient", mutates_args=())
def _gradient(logits: Tensor, targets: Tensor, arcs: Tensor, blank: int) -> Tensor:
    """Return the gradient (B, T, U + 1, V) in the dtype of the logits.

    Args:
        logits, targets, blank: As in :func:`rnnt_loss`.
        arcs: Posteriors of arcs times the gradient of their utterance's loss,
            (2, B, T, U + 1).
    """
    n_vocab = logits.size(-1)
    grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    rows, grad_rows = logits.reshape(-1, n_vocab), grad.view(-1, n_vocab)
    labels = next_tokens(logits, targets)[:, None]
    by_blank, by_label = arcs.flatten(1)
    visits = (by_blank + by_label)[:, None]
    unseen = visits == 0  # padding, which may hold NaN
    with torch.autocast(logits.device.type, enabled=False):
        for start, stop in blocks(rows):
            part = slice(start, stop)
            block = torch.softmax(rows[part], -1, dtype=arcs.dtype)
            block.mul_(visits[part]).masked_fill_(unseen[part], 0.0)
            block[:, blank] -= by_blank[part]
            block.scatter_add_(1, labels[part], -by_label[part, None])
            grad_rows[part] = block
    return grad


@_gradient.register_fake
def _(logits: Tensor, targets: Tensor, arcs: Tensor, blank: int) -> Tensor:
    return logits.new_empty(logits.shape)


class _Lattice:
    """The recursion over diagonals, in float64.

    The backward variables are the forward variables of the lattice that each utterance
    has when it is read from its end.

    Args:
        logp: Log-probabilities of arcs, (2, B, T, U + 1); padding may be NaN.
        frames: (B,) int64.
        tokens: (B,) int64.
    """

    def __init__(self, logp: Tensor, frames: Tensor, tokens: Tensor) -> None:
        _, _, n_frames, n_nodes = logp.shape
        self.n_diagonals = n_frames + n_nodes - 1
        self.frames, self.tokens = frames[:, None, None], tokens[:, None, None]
        self.t = torch.arange(n_frames + 1, device=logp.device)[:, None]
        self.u = torch.arange(n_nodes, device=logp.device)
        self.logp = without_padding(logp, frames, tokens)

    def scores(self, needs_arcs: bool, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (B,) and posteriors of arcs (2, B, T, U + 1).

        Args:
            needs_arcs: Whether the posteriors are computed, or else empty.
            wrong: Utterances whose results are NaN, (B,) bool.
        """
        frames, tokens, t, u = self.frames, self.tokens, self.t, self.u
        n_batch = len(frames)
        diagonal = torch.arange(self.n_diagonals, device=t.device)[:, None]
        rows = diagonal - u  # frames of the nodes of a diagonal
        places = [((rows, u), (rows, u))]
        if needs_arcs:
            left = frames - rows, tokens - u  # the same, counted from the end
            places.append(((left[0] - 1, left[1]), (left[0], left[1] - 1)))
        arcs = [
            torch.cat([pick(self.logp[kind], *place[kind]) for place in places])
            for kind in (0, 1)
        ]
        nodes = _recursion(*(one.transpose(0, 1).contiguous() for one in arcs))
        ahead, behind = nodes[:n_batch], nodes[n_batch:]
        total = pick(ahead, frames + tokens, tokens).flatten()
        total = total.masked_fill(wrong, torch.nan)
        if not needs_arcs:
            return total, self.logp[:0]
        before = pick(ahead, t[:-1] + u, u)  # (B, T, U + 1)
        after = pick(behind, frames - t + tokens - u, tokens - u)  # (B, T + 1, U + 1)
        after = torch.stack([after[:, 1:], F.pad(after[:, :-1, 1:], (0, 1))])
        # Without a path there is nothing to distribute: all arcs have probability 0.
        norm = total.masked_fill(total == -torch.inf, 0.0)[:, None, None]
        return total, (before + self.logp + after - norm).exp()


def _recursion(blanks: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of reaching each node.

    Args:
        blanks, labels: Arcs that leave the nodes of each diagonal, (N, B, U + 1). Node
            u of diagonal d is (d - u, u).

    Returns:
        (B, N + 1, U + 1), by diagonal.
    """
    n_diagonals, n_batch, n_nodes = blanks.shape
    # Column 0 is -inf: nothing leads to the nodes without tokens from the left.
    nodes = blanks.new_full((n_diagonals + 1, n_batch, n_nodes + 1), -torch.inf)
    nodes[0, :, 1] = 0.0
    labels = F.pad(labels[:, :, :-1], (1, 0))
    here, left = nodes[:, :, 1:].unbind(), nodes[:, :, :-1].unbind()
    for step, (blank, label) in enumerate(zip(blanks, labels, strict=True)):
        torch.logaddexp(here[step] + blank, left[step] + label, out=here[step + 1])
    return nodes[:, :, 1:].transpose(0, 1)
