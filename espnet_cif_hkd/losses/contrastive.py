"""Acoustic contrastive distillation: a token's vector against its teacher vector.

The code of the paper (arXiv 2301.13003) gathers K negatives for each of N tokens into
an (N, K, C) tensor. Every negative is one of the same N teacher vectors, so one (N, N)
matrix of cosines holds all the numbers, and a mask selects the negatives. The loss
processes blocks of rows and computes the gradient of each block immediately: memory is
O(N * C) for every K.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NORM_EPS = 1e-6
# Cosines in memory at the same time. A batch of 1,400 tokens is one block; the blocks
# of a larger batch are still wide enough for fast matrix products.
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
    """Contrastive loss of each token, student against teacher.

    Args:
        student: (B, L, C), any floating dtype. Padding has no effect.
        teacher: (B, L, C), any floating dtype; gets no gradient.
        lengths: (B,) integer, number of tokens; N is their sum.
        temperature: divisor of the cosines, > 0.
        num_negatives: K, drawn without replacement for each token from the N
            teacher vectors of the batch; floor(0.8 N) if N <= K. A token that draws
            itself has one negative less. None uses all others of the batch.
        negative_ids: (N, K) integer, given negatives instead of drawn ones: indices
            of the flattened valid tokens. The token's own index is ignored; an index
            that occurs twice counts twice.
        generator: random generator, on the device of ``student``; None means torch's
            global one. Its state and the shapes determine the negatives.
        loss_dtype: dtype of the softmax, in the paper float32 for all inputs. The
            cosines are float64 for float64 inputs and float32 for all others, also
            under autocast.

    Returns:
        (N,) losses in nats, of ``loss_dtype``, and the share of tokens (float32
        scalar) that are at least as close to their own teacher vector as to every
        negative. Cosines that are equal up to rounding count as close: letters of
        one word may share a vector. ``create_graph=True`` in a backward pass raises
        RuntimeError.

    Raises:
        ValueError: shapes do not fit or a number is out of range.

    Source: acoustic contrastive distillation of arXiv 2301.13003.

    Example:
        >>> import torch
        >>> vectors = torch.eye(4).view(2, 2, 4)
        >>> losses, nearest = contrastive_loss(
        ...     vectors, vectors, torch.tensor([2, 1]), temperature=0.1,
        ...     num_negatives=None,
        ... )
        >>> losses.shape, bool((losses < 1e-3).all()), nearest.item()
        (torch.Size([3]), True, 1.0)
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
    """Mask of tokens, False in padding, (B, L) bool.

    Args:
        padded: (B, L, ...).
        lengths: (B,) integer, number of tokens.

    Raises:
        ValueError: shapes do not fit.

    Example:
        >>> import torch
        >>> valid_tokens(torch.zeros(2, 3, 4), torch.tensor([3, 1])).tolist()
        [[True, True, True], [True, False, False]]
    """
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
        teacher: (M, C) with M >= N. Rows ``first`` to ``first + N - 1`` are the
            vectors of the N tokens. Negatives come from all M rows, which may include
            the tokens of other processes.
        temperature, num_negatives, negative_ids, generator, loss_dtype: as in
            :func:`contrastive_loss`; negatives are drawn from M rows instead of N.
        first: row of ``teacher`` that belongs to the first token.

    Returns:
        (N,) losses and the share of nearest tokens, as :func:`contrastive_loss`.

    Raises:
        ValueError: shapes do not fit or a number is out of range.

    Example:
        >>> import torch
        >>> teacher = torch.eye(3)
        >>> losses, nearest = token_contrastive_loss(
        ...     teacher[1:2], teacher, 1.0, None, first=1
        ... )
        >>> losses
        tensor([0.5514])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, but is {temperature}")
    if num_negatives is not None and num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, but is {num_negatives}")
    n_tokens, n_candidates = student.size(0), teacher.size(0)
    if not 0 <= first <= n_candidates - n_tokens:
        raise ValueError(
            f"teacher has {n_candidates} rows: too few for {n_tokens} tokens from "
            f"row {first}"
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
    """Losses (N,) of ``own`` (N, C) whose gradients (N, C) are computed already.

    The vector of a token affects only the loss of this token. So the gradient of a row
    is computed together with its block of cosines, and the block needs no memory until
    the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, losses: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return losses.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        # The saved gradient has no graph to the vectors. torch's once_differentiable
        # would not raise in torch.autograd.grad, which skips its error node.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "contrastive_loss has no second derivative: call backward or "
                "torch.autograd.grad without create_graph"
            )
        (grad,) = ctx.saved_tensors
        return above.to(grad.dtype)[:, None] * grad, None, None


def _drawn(
    logits: Tensor,
    first: int,
    num_negatives: int | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Logits, (n, M), -inf if not drawn, and the columns of the own tokens, (n,)."""
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
    """Logits, (n, 1 + K), own token first, and its column, 0, (n,)."""
    own = torch.arange(first, first + len(logits), device=logits.device)[:, None]
    negatives = logits.gather(1, negative_ids)
    negatives = negatives.masked_fill(negative_ids == own, -torch.inf)
    return torch.cat([logits.gather(1, own), negatives], dim=1), own[:, 0] * 0


def negatives_per_token(n_candidates: int, num_negatives: int | None) -> int:
    """Number of vectors that are drawn for a token from ``n_candidates``.

    Source: the code of arXiv 2301.13003; floor(0.8 N) for small batches.

    Example:
        >>> [negatives_per_token(1000, k) for k in (100, 1000, None)]
        [100, 800, 1000]
    """
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
    """Draw a random subset for each token, without the token itself.

    Args:
        n_tokens: N, number of tokens.
        num_negatives: see :func:`contrastive_loss`.
        n_candidates: M, number of vectors to draw from; None means N.
        first: index of the first token's own vector.
        device: device of the draws and of the result.
        generator: random generator; None means torch's global one.

    Returns:
        (N, M) bool, True where column j is a negative of token i. Every row has K
        of :func:`negatives_per_token`, or K - 1 if it drew its own index.

    Example:
        >>> import torch
        >>> chosen = draw_negatives(5, 2, generator=torch.Generator().manual_seed(0))
        >>> chosen.shape, bool((chosen.sum(dim=1) <= 2).all())
        (torch.Size([5, 5]), True)
    """
    if n_candidates is None:
        n_candidates = n_tokens
    shape = (n_tokens, n_candidates)
    count = negatives_per_token(n_candidates, num_negatives)
    if count == n_candidates:
        keep = torch.ones(shape, dtype=torch.bool, device=device)
    else:
        # The positions of the largest of M independent draws are a uniform subset.
        # Drawing the smaller of the subset and its complement halves the work for the
        # paper's 80 %.
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
