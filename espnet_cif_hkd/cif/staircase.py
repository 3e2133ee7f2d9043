"""The weighted sums of integrate-and-fire, as bags of frames and of tokens.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    acoustic frames, padded to the longest utterance
D    size of a frame's vector
L    fired tokens, padded to the largest number in the batch
c    running sum of alpha: frame t covers ``[c_{t-1}, c_t]``, token k (from 0)
     owns ``[k, k + 1]``
E    steps of the staircase of one utterance, ``T + L``
===  =====================================================================

A frame contributes to a token only where both intervals overlap. Along the running sum,
each step ends at the end of a frame or of a token. So the overlaps form a staircase in
the (T, L) matrix that is sorted by frame and by token at the same time. The first step
of each is known without sorting: frame t begins at step ``t + (tokens fired before
it)``, token k > 0 at step ``(frame in which token k - 1 fired) + k``. The frames after
the last token form an extra token L; its steps are empty.

A token is a bag of neighbouring steps, and so is a frame. ``embedding_bag`` sums over
bags without a (B, T, D) product in memory and without atomic additions: frames into
tokens in the forward pass, gradients of tokens into frames in the backward pass.
"""

from typing import Any

import torch

_aten = torch.ops.aten
_SUM = 0  # embedding_bag's mode


class _Staircase(torch.autograd.Function):
    """Sum frames by their overlaps with tokens; see :func:`fire_tokens`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hs: torch.Tensor,
        cum: torch.Tensor,
        fire_frame: torch.Tensor,
        lengths: torch.Tensor,
        token_lengths: torch.Tensor,
    ) -> torch.Tensor:
        n_batch, n_frames, n_dim = hs.shape
        n_tokens = fire_frame.size(1)
        n_steps = n_frames + n_tokens
        rows = torch.arange(n_batch, device=hs.device)[:, None]  # (B, 1)
        frame = torch.arange(n_frames, device=hs.device)  # (T,)
        token = torch.arange(1, n_tokens + 1, device=hs.device)  # (L,) without token 0
        began = fire_frame < n_frames  # (B, L)
        start_frame = fire_frame.clamp(max=n_frames - 1)  # (B, L)

        # (B, T), the incomplete token at the beginning of a frame
        open_token = torch.searchsorted(
            start_frame, frame.expand(n_batch, -1).contiguous()
        )
        frame_step = frame + open_token  # (B, T)
        token_step = start_frame + token  # (B, L)

        before = torch.nn.functional.pad(cum[:, :-1], (1, 0))
        left = torch.minimum(cum, open_token + 1.0) - before  # (B, T)
        first = torch.minimum(cum.gather(1, start_frame), token + 1.0) - token
        # Weight after the last token is a rest below the threshold, or rounding.
        no_left = (frame >= lengths[:, None]) | (open_token >= token_lengths[:, None])
        no_first = (token >= token_lengths[:, None]) | ~began

        def by_step(at_frames: torch.Tensor, at_tokens: torch.Tensor) -> torch.Tensor:
            steps = at_frames.new_empty(n_batch, n_steps)
            steps.scatter_(1, frame_step, at_frames)
            return steps.scatter_(1, token_step, at_tokens)  # (B, E)

        empty = by_step(no_left, no_first)
        shares = by_step(left, first.to(left.dtype)).masked_fill_(empty, 0.0)
        # 0 * NaN is NaN: an empty step reads a valid frame, of the same utterance if
        # it has one.
        spare = torch.where(lengths > 0, rows[:, 0], lengths.argmax()) * n_frames
        frames = by_step(frame.expand(n_batch, -1), start_frame) + rows * n_frames
        frames = torch.where(empty, spare[:, None], frames)
        tokens = by_step(open_token, token.expand(n_batch, -1))
        tokens = tokens.clamp(max=n_tokens - 1) + rows * n_tokens

        weights = shares.to(hs.dtype).flatten()
        frames, tokens = frames.flatten(), tokens.flatten()
        frame_bags = (frame_step + rows * n_steps).flatten()
        token_bags = torch.nn.functional.pad(token_step[:, :-1], (1, 0))
        token_bags = (token_bags + rows * n_steps).flatten()
        embeddings = _sum_bags(hs.reshape(-1, n_dim), frames, token_bags, weights)
        embeddings = embeddings.view(n_batch, n_tokens, n_dim)
        position = torch.arange(n_tokens, device=hs.device)
        token_pad = position >= token_lengths.masked_fill(lengths <= 0, 0)[:, None]

        # A frame ends before the next one begins; the last frame ends with the last
        # token that began.
        last = n_frames - 1 + began.sum(1, keepdim=True)
        ends_at = torch.cat([frame_step[:, 1:] - 1, last], dim=1) + rows * n_steps
        ctx.save_for_backward(
            hs,
            frames,
            tokens,
            weights,
            frame_bags,
            token_bags,
            ends_at,
            empty,
            token_pad,
        )
        # Not in place: compiled by torch 2.11, the result would have no gradient.
        return embeddings.masked_fill(token_pad[..., None], 0.0)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        # The saved weights have no graph to alpha. torch's once_differentiable would
        # not raise in torch.autograd.grad, which skips its error node.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "integrate_and_fire has no second derivative: call backward or "
                "torch.autograd.grad without create_graph"
            )
        (
            hs,
            frames,
            tokens,
            weights,
            frame_bags,
            token_bags,
            ends_at,
            empty,
            token_pad,
        ) = ctx.saved_tensors
        n_dim = hs.size(2)
        grad = grad.masked_fill(token_pad[..., None], 0.0).reshape(-1, n_dim)
        grad_hs = grad_cum = None
        if ctx.needs_input_grad[0]:
            grad_hs = _sum_bags(grad, tokens, frame_bags, weights).view(hs.shape)
        if ctx.needs_input_grad[1]:
            grad_shares = _aten._embedding_bag_per_sample_weights_backward(
                grad, hs.reshape(-1, n_dim), frames, token_bags, tokens, _SUM, -1
            )
            grad_shares = grad_shares.masked_fill(empty.flatten(), 0.0).double()
            # c_t ends the last step of frame t and begins the first of frame t + 1.
            grad_cum = grad_shares[ends_at]
            grad_cum[:, :-1] -= grad_shares[frame_bags.view_as(ends_at)[:, 1:]]
        return grad_hs, grad_cum, None, None, None


def _sum_bags(
    rows: torch.Tensor,
    indices: torch.Tensor,
    bags: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Weighted sum of the rows of each bag, ``(bags, D)``."""
    sums: torch.Tensor = _aten._embedding_bag(
        rows, indices, bags, False, _SUM, False, weights, False, -1
    )[0]
    return sums


def fire_tokens(
    hs: torch.Tensor,
    cum: torch.Tensor,
    fire_frame: torch.Tensor,
    lengths: torch.Tensor,
    token_lengths: torch.Tensor,
) -> torch.Tensor:
    """Sum the frames of each token, weighted by their overlap with it.

    Args:
        hs: Frames, ``(B, T, D)``, any floating dtype. The content of padding has no
            effect.
        cum: Running sum of alpha, ``(B, T)`` float64, constant in padding.
        fire_frame: Frame in which each token is completed, ``(B, L)`` int64; T where
            the sum does not complete it.
        lengths: Number of valid frames, ``(B,)`` integer.
        token_lengths: Number of valid tokens, ``(B,)`` integer.

    Returns:
        Fired vectors, ``(B, L, D)``, float32 or (for float64 frames) float64; zero in
        padding. ``create_graph=True`` in a backward pass raises RuntimeError.

    Example:
        >>> import torch
        >>> hs = torch.tensor([[[1.0], [10.0], [100.0]]])
        >>> cum = torch.tensor([[0.5, 1.5, 2.0]], dtype=torch.float64)
        >>> fire_frame = torch.tensor([[1, 2]])
        >>> fire_tokens(hs, cum, fire_frame, torch.tensor([3]), torch.tensor([2]))
        tensor([[[ 5.5000],
                 [55.0000]]])
    """
    n_batch, n_frames, n_dim = hs.shape
    n_tokens = fire_frame.size(1)
    hs = hs.to(torch.promote_types(hs.dtype, torch.float32))
    if n_tokens == 0 or n_frames == 0:
        # Depends on hs, so that backward works for a batch that fires nothing.
        return hs.new_zeros(n_batch, n_tokens, n_dim) + hs[:0].sum()
    fired: torch.Tensor = _Staircase.apply(hs, cum, fire_frame, lengths, token_lengths)
    return fired
