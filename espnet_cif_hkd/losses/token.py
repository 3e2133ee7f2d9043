"""Targets of the decoder and how well it meets them, without a wait for the device.

ESPnet has functions for each of these; they loop over the batch, read counts back from
the device, and each goes over the vocabulary anew.
"""

import math
from dataclasses import dataclass

import torch


@dataclass
class TokenScores:
    """How well known tokens have been predicted; sums over all that are no padding.

    Attributes:
        loss: Divergence of the smoothed targets from the prediction, as ESPnet's label
            smoothing sums it; scalar, the only one with a gradient.
        nll: Negative log-likelihood of the tokens themselves; scalar.
        n_correct: Tokens that are the likeliest; scalar.
        likeliest: The likeliest tokens, ``(B, L)`` int64.
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
    """What the decoder reads and what it is to say.

    Args:
        text: Token ids, ``(B, U)`` int64, padded with ``ignore_id``.
        text_lengths: Tokens, ``(B,)``.
        sos: Comes first in the input.
        eos: Ends the targets, and pads the input.
        ignore_id: Pads the targets.

    Returns:
        Input and targets, both ``(B, U + 1)``.
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
    """Compare predictions with targets whose mass is smoothed over the vocabulary.

    Args:
        logits: ``(B, L, V)``; finite also where it does not count.
        targets: ``(B, L)`` int64.
        ignore_id: Marks targets that do not count.
        smoothing: Mass that a target gives to the other V - 1 tokens, in equal parts.

    Source: spec A 3.1; ESPnet's subtracts the entropy of the target, a constant.
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
