"""Targets of the decoder, its loss and its accuracy, without device synchronisation.

ESPnet's functions for this loop over the batch, read counts back from the device and
each process the complete vocabulary again.
"""

import math
from dataclasses import dataclass

import torch


@dataclass
class TokenScores:
    """Scores of known tokens; sums over all tokens without padding.

    Attributes:
        loss: Divergence between smoothed targets and prediction, the sum of ESPnet's
            label smoothing loss; scalar, the only attribute with a gradient.
        nll: Negative log-likelihood of the tokens; scalar.
        n_correct: Number of tokens with the highest probability; scalar int64.
        likeliest: Tokens with the highest probability, ``(B, L)`` int64.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[9.0, 0.0], [9.0, 0.0], [9.0, 0.0]]])
        >>> scores = score_tokens(logits, torch.tensor([[0, 1, -1]]), -1, 0.0)
        >>> scores.n_correct.item(), scores.likeliest.tolist()
        (1, [[0, 0, 0]])
    """

    loss: torch.Tensor
    nll: torch.Tensor
    n_correct: torch.Tensor
    likeliest: torch.Tensor


def shift_targets(
    text: torch.Tensor,
    text_lengths: torch.Tensor,
    sos: int,
    eos: int,
    ignore_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make the input and the targets of the decoder.

    Args:
        text: Token ids, ``(B, U)`` int64, padded with ``ignore_id``.
        text_lengths: Number of tokens, ``(B,)`` integer.
        sos: First token of the input.
        eos: Last target; also the padding of the input.
        ignore_id: Padding of the targets.

    Returns:
        Input and targets, both ``(B, U + 1)`` int64.

    Example:
        >>> import torch
        >>> text = torch.tensor([[5, 6, 7], [8, -1, -1]])
        >>> ys_in, ys_out = shift_targets(text, torch.tensor([3, 1]), 1, 2, -1)
        >>> ys_in.tolist(), ys_out.tolist()
        ([[1, 5, 6, 7], [1, 8, 2, 2]], [[5, 6, 7, 2], [8, 2, -1, -1]])
    """
    n_tokens = text.size(1)
    steps = torch.arange(n_tokens + 1, device=text.device)
    ys_in = torch.nn.functional.pad(text, (1, 0), value=sos)
    ys_in = ys_in.masked_fill(steps > text_lengths[:, None], eos)
    ys_out = torch.nn.functional.pad(text, (0, 1), value=ignore_id)
    return ys_in, ys_out.masked_fill(steps == text_lengths[:, None], eos)


def score_tokens(
    logits: torch.Tensor, targets: torch.Tensor, ignore_id: int, smoothing: float
) -> TokenScores:
    """Compare predictions with targets; label smoothing over the vocabulary.

    Args:
        logits: ``(B, L, V)``, any floating dtype; must be finite in padding, too. The
            softmax is float32, or float64 for float64 logits.
        targets: ``(B, L)`` int64.
        ignore_id: Target id that is padding.
        smoothing: Probability that a target gives to the other V - 1 tokens, in equal
            parts; 0 disables smoothing.

    Source: the cross-entropy of arXiv 2301.13003; as in ESPnet's ``LabelSmoothingLoss``
    the entropy of the target, a constant, is subtracted.

    Example:
        >>> import torch
        >>> targets = torch.tensor([[2, 0, -1]])
        >>> scores = score_tokens(torch.zeros(1, 3, 4), targets, -1, 0.1)
        >>> round(scores.nll.item(), 4), round(scores.loss.item(), 4)
        (2.7726, 1.9027)
    """
    others = max(logits.size(-1) - 1, 1)
    valid = targets != ignore_id
    tokens = targets.masked_fill(~valid, 0)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logp = torch.log_softmax(logits, dim=-1, dtype=dtype)
    nll = -logp.gather(-1, tokens[..., None]).squeeze(-1)  # (B, L)
    per_token = nll
    if smoothing:
        share = smoothing / others
        entropy = -_plogp(1 - smoothing) - others * _plogp(share)
        smooth = -logp.sum(dim=-1)
        per_token = (1 - smoothing - share) * nll + share * smooth - entropy
    likeliest = logits.detach().argmax(dim=-1)
    return TokenScores(
        loss=per_token.masked_fill(~valid, 0.0).sum(),
        nll=nll.detach().masked_fill(~valid, 0.0).sum(),
        n_correct=((likeliest == tokens) & valid).sum(),
        likeliest=likeliest,
    )


def _plogp(p: float) -> float:
    return p * math.log(p) if p > 0 else 0.0
