"""Random inputs of the transducer loss."""

import torch


def lattice(frames, tokens, n_vocab=6, seed=0, dtype=torch.float64, blank=0, extra=0):
    """Logits, targets and lengths of utterances; ``extra`` rows of padding."""
    generator = torch.Generator().manual_seed(seed)
    n_frames, n_tokens = max(frames) + extra, max(tokens) + extra
    logits = torch.randn(
        len(frames), n_frames, n_tokens + 1, n_vocab, generator=generator
    )
    targets = torch.randint(1, n_vocab, (len(frames), n_tokens), generator=generator)
    targets = (targets + blank) % n_vocab  # never the blank
    return (2 * logits).to(dtype), targets, torch.tensor(frames), torch.tensor(tokens)


def with_gradient(loss, logits, *others, weights=None, **options):
    """Losses and the gradient of their (weighted) sum."""
    logits = logits.detach().clone().requires_grad_()
    losses = loss(logits, *others, **options)
    weights = torch.ones_like(losses) if weights is None else weights
    (gradient,) = torch.autograd.grad((losses * weights.to(losses)).sum(), logits)
    return losses.detach(), gradient
