"""Acoustic contrastive distillation: a token's vector against its PLM vector.

The paper (spec A 3.4) gathers K negatives for each of N tokens into an (N, K, C)
tensor. Every negative is one of the same N teacher vectors, so that one (N, N)
matrix of cosines already holds all the numbers: choosing negatives is a mask on
it. Memory is O(N * N + N * C), whatever K.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NORM_EPS = 1e-6


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
        generator: source of the draws, on the device of ``student``.
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
    with torch.autocast(student.device.type, enabled=False):
        dtype = torch.promote_types(student.dtype, torch.float32)
        own = F.normalize(student.to(dtype), dim=-1, eps=NORM_EPS)
        others = F.normalize(teacher.detach().to(dtype), dim=-1, eps=NORM_EPS)
        logits = (own @ others.T).to(loss_dtype) / temperature
        positive = logits.diagonal(first)
        if negative_ids is None:
            keep = draw_negatives(
                n_tokens,
                num_negatives,
                n_candidates=n_candidates,
                first=first,
                device=student.device,
                generator=generator,
            )
            negatives = logits.masked_fill(~keep, -torch.inf)
        else:
            _check_ids(negative_ids, n_tokens, n_candidates)
            ids = negative_ids.to(student.device)
            own_rows = torch.arange(n_tokens, device=ids.device) + first
            is_self = ids == own_rows[:, None]
            negatives = logits.gather(1, ids).masked_fill(is_self, -torch.inf)
        candidates = torch.cat([positive[:, None], negatives], dim=1)
        target = torch.zeros(n_tokens, dtype=torch.long, device=student.device)
        losses = F.cross_entropy(candidates, target, reduction="none")
        best = candidates.detach().amax(dim=1)
        nearest = positive.detach() >= best - NORM_EPS / temperature
        accuracy = nearest.sum().float() / max(n_tokens, 1)
    return losses, accuracy


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
