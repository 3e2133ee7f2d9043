"""The transducer loss as a plain loop over the lattice: the reference for tests."""

import torch
from torch import Tensor


def rnnt_loss_naive(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
) -> Tensor:
    """Like ``rnnt_loss`` with ``reduction="none"``; autograd gives the gradient.

    Args:
        logits: (B, T, U + 1, V), floating; float64 for an exact result.
        targets: (B, U) integer.
        logit_lengths: (B,) integer, frames.
        target_lengths: (B,) integer, tokens.
        blank: id of the blank, from 0.

    Returns:
        (B,), in the dtype of ``logits``.

    Example:
        >>> import torch
        >>> lengths = torch.tensor([2]), torch.tensor([0])
        >>> targets = torch.zeros(1, 0, dtype=torch.long)
        >>> loss = rnnt_loss_naive(torch.zeros(1, 2, 1, 4), targets, *lengths)
        >>> bool(loss.exp().isclose(torch.tensor(16.0)))
        True
    """
    losses = []
    for b in range(len(logits)):
        n_frames, n_tokens = int(logit_lengths[b]), int(target_lengths[b])
        reached: dict[tuple[int, int], Tensor] = {}
        for t in range(n_frames):
            for u in range(n_tokens + 1):
                arcs = []
                if t == u == 0:
                    arcs.append(logits.new_zeros(()))
                if t > 0:
                    logp = logits[b, t - 1, u].log_softmax(dim=0)
                    arcs.append(reached[t - 1, u] + logp[blank])
                if u > 0:
                    logp = logits[b, t, u - 1].log_softmax(dim=0)
                    arcs.append(reached[t, u - 1] + logp[targets[b, u - 1]])
                reached[t, u] = torch.stack(arcs).logsumexp(dim=0)
        logp = logits[b, n_frames - 1, n_tokens].log_softmax(dim=0)
        losses.append(-reached[n_frames - 1, n_tokens] - logp[blank])
    return torch.stack(losses)
