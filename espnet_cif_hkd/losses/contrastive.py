"""Acoustic contrastive distillation: a token's vector against its PLM vector.

The paper (spec A 3.4) gathers K negatives for each of N tokens into an (N, K, C)
tensor. Every negative is one of the same N teacher vectors, so that one (N, N)
matrix of cosines already holds all the numbers: choosing negatives is a mask on
it. Blocks of its rows are gone through one after the other, and the gradient of a
block is taken while it is at hand: memory is O(N * C), whatever K.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NORM_EPS = 1e-6
# Cosines held at once. A batch of 1,400 tokens is a single block; the blocks of a
# larger one are still wide enough for fast products of matrices.
_BLOCK_COSINES = 1 << 21


def contrastive_loss(
    student: Tensor,
    teacher: Tensor,
    lengths: Tensor,
    temperature: float,
    num_negatives: int | None,
    negative_ids: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    loss_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Contrastive loss of each token, student to teacher (spec A 3.4).

    Args:
        student: (B, L, C), floating. What lies beyond ``lengths`` is never read.
        teacher: (B, L, C), floating; takes no gradient.
        lengths: (B,) integer, tokens of each utterance; N is their sum.
        temperature: divisor of the cosines, > 0.
        num_negatives: K, drawn without replacement for each token among the
            batch's N teacher vectors; floor(0.8 N) when N <= K. A token that draws
            itself has one negative less. None takes all others of the batch.
        negative_ids: (N, K) integer, negatives given instead of drawn: indices
            into the flattened valid tokens. One equal to the token's own index is
            ignored, one that occurs twice counts twice.
        generator: source of the draws, on the device of ``student``; None means
            torch's own. Its state and the shapes determine the negatives.
        loss_dtype: dtype of the softmax. The paper's is float32 whatever the
            inputs are; the cosines are float64 for float64 inputs and float32
            for all others, also under autocast.

    Returns:
        (N,) losses in nats, of ``loss_dtype``, and the share of tokens (float32
        scalar) to which no negative is nearer than their own teacher vector. The
        letters of one word may share a vector: equal cosines, up to rounding, count
        as near.

    Raises:
        ValueError: shapes do not fit or a number is out of range.
    """
    if student.shape != teacher.shape or student.dim() != 3:
        raise ValueError(
            "student and teacher must both be (B, L, C), but are "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    valid = valid_tokens(student, lengths)
    return token_contrastive_loss(
        student[valid],
        teacher[valid],
        temperature,
        num_negatives,
        negative_ids,
        generator=generator,
        loss_dtype=loss_dtype,
    )


def valid_tokens(padded: Tensor, lengths: Tensor) -> Tensor:
    """(B, L) True where ``padded`` (B, L, ...) holds a token, not padding."""
    if lengths.shape != padded.shape[:1]:
        raise ValueError(
            f"lengths {tuple(lengths.shape)} do not fit (B, L, C) = "
            f"{tuple(padded.shape)}"
        )
    positions = torch.arange(padded.size(1), device=padded.device)
    return positions[None, :] < lengths.to(padded.device)[:, None]


def token_contrastive_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    num_negatives: int | None,
    negative_ids: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    loss_dtype: torch.dtype = torch.float32,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """:func:`contrastive_loss` of tokens without padding.

    Args:
        student: (N, C).
        teacher: (M, C) with M >= N: the own vectors of the N tokens are the rows from
            ``first`` on, and negatives are drawn among all M, or indexed by
            ``negative_ids``. Rows of other processes share their negatives.
        temperature, num_negatives, negative_ids, generator, loss_dtype: see there,
            with M in the place of N for what is drawn from.
        first: row of ``teacher`` that belongs to the first token.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, but is {temperature}")
    if num_negatives is not None and num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, but is {num_negatives}")
    n_tokens, n_candidates = student.size(0), teacher.size(0)
    if not 0 <= first <= n_candidates - n_tokens:
        raise ValueError(
            f"teacher has {n_candidates} rows, which do not hold the {n_tokens} of "
            f"the tokens from row {first} on"
        )
    if negative_ids is not None:
        _check_ids(negative_ids, n_tokens, n_candidates)
        negative_ids = negative_ids.to(student.device)
    with torch.autocast(student.device.type, enabled=False):
        dtype = torch.promote_types(student.dtype, torch.float32)
        own = F.normalize(student.to(dtype), dim=-1, eps=NORM_EPS)
        others = F.normalize(teacher.detach().to(dtype), dim=-1, eps=NORM_EPS)
        needs_grad = torch.is_grad_enabled() and own.requires_grad
        losses = own.new_empty(n_tokens, dtype=loss_dtype)
        nearest = torch.empty(n_tokens, dtype=torch.bool, device=own.device)
        grad = torch.empty_like(own) if needs_grad else None
        n_rows = max(1, _BLOCK_COSINES // max(n_candidates, 1))
        for start in range(0, n_tokens, n_rows):
            rows = slice(start, start + n_rows)
            block = own[rows].detach().requires_grad_(needs_grad)
            logits = (block @ others.T).to(loss_dtype) / temperature
            if negative_ids is None:
                scores, place = _drawn(logits, first + start, num_negatives, generator)
            else:
                scores, place = _given(logits, first + start, negative_ids[rows])
            row_losses = F.cross_entropy(scores, place, reduction="none")
            if grad is not None:
                (grad[rows],) = torch.autograd.grad(row_losses.sum(), block)
            losses[rows] = row_losses.detach()
            scores = scores.detach()
            positive = scores.gather(1, place[:, None])[:, 0]
            nearest[rows] = positive >= scores.amax(dim=1) - NORM_EPS / temperature
        if grad is not None:
            losses = _KnownGradient.apply(own, losses, grad)
    return losses, nearest.sum().float() / max(n_tokens, 1)


class _KnownGradient(torch.autograd.Function):
    """Losses (N,) of ``own`` (N, C) whose rows' gradients (N, C) are known already.

    A token's vector reaches no loss but its own, so that a row's gradient can be taken
    with its block of cosines, and nothing of the block waits for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, losses: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return losses.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return above.to(grad.dtype)[:, None] * grad, None, None


def _drawn(
    logits: Tensor,
    first: int,
    num_negatives: int | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """(n, M) logits without those not drawn, and where each own one stands, (n,)."""
    keep = draw_negatives(
        logits.size(0),
        num_negatives,
        n_candidates=logits.size(1),
        first=first,
        device=logits.device,
        generator=generator,
    )
    keep.diagonal(first).fill_(True)
    place = torch.arange(first, first + len(logits), device=logits.device)
    return logits.masked_fill(keep.logical_not_(), -torch.inf), place


def _given(logits: Tensor, first: int, negative_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1 + K) logits, the own one before the negatives, and its place, 0, (n,)."""
    own = torch.arange(first, first + len(logits), device=logits.device)[:, None]
    negatives = logits.gather(1, negative_ids)
    negatives = negatives.masked_fill(negative_ids == own, -torch.inf)
    return torch.cat([logits.gather(1, own), negatives], dim=1), own[:, 0] * 0


def negatives_per_token(n_candidates: int, num_negatives: int | None) -> int:
    """How many of ``n_candidates`` vectors are drawn for a token (spec A 3.4)."""
    if num_negatives is None:
        return n_candidates
    if n_candidates <= num_negatives:
        return n_candidates * 4 // 5
    return num_negatives


def draw_negatives(
    n_tokens: int,
    num_negatives: int | None,
    *,
    n_candidates: int | None = None,
    first: int = 0,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """A random subset for each token, without the token itself.

    Args:
        n_tokens: N, tokens to draw for.
        num_negatives: see :func:`contrastive_loss`.
        n_candidates: M, vectors to draw from; None means N.
        first: which of them is the first token's own.
        device: of the draws and the result.
        generator: source of the draws.

    Returns:
        (N, M) bool, True where column j is a negative of token i. Every row holds
        K of :func:`negatives_per_token`, or K - 1 if it drew its own index.
    """
    if n_candidates is None:
        n_candidates = n_tokens
    shape = (n_tokens, n_candidates)
    count = negatives_per_token(n_candidates, num_negatives)
    if count == n_candidates:
        keep = torch.ones(shape, dtype=torch.bool, device=device)
    else:
        # The places of the largest of M independent draws are a uniform subset.
        # Drawing whichever of the subset and its complement is the smaller one
        # halves the work for the paper's 80 %.
        drop = count > n_candidates // 2
        size = n_candidates - count if drop else count
        draws = torch.rand(shape, device=device, generator=generator)
        chosen = draws.topk(size, dim=1, sorted=False).indices
        keep = torch.full_like(draws, drop, dtype=torch.bool)
        keep.scatter_(1, chosen, not drop)
    keep.diagonal(first).fill_(False)
    return keep


def _check_ids(ids: Tensor, n_tokens: int, n_candidates: int) -> None:
    if ids.dim() != 2 or ids.size(0) != n_tokens:
        raise ValueError(
            f"negative_ids must be (N, K) with N = {n_tokens}, "
            f"but is {tuple(ids.shape)}"
        )
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < n_candidates:
        raise ValueError(f"negative_ids must lie in 0..{n_candidates - 1}")
