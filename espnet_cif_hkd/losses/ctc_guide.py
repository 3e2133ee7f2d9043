"""CTC as a guide of integrate-and-fire.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    encoder frames, padded
U    target tokens without ``<eos>``, padded
S    2U + 1, states of CTC: blank, token 1, blank, …, token U, blank
V    vocabulary
===  =====================================================================

Source: the idea that the spikes of CTC guide the boundaries of integrate-and-fire is
that of arXiv 2104.04702. The loss and the use of the forced alignment are ours.
"""

import torch
from torch import Tensor


@torch.no_grad()
def ctc_spikes(
    logp: Tensor, hlens: Tensor, ys_pad: Tensor, ys_lens: Tensor, blank: int = 0
) -> Tensor:
    """Return the frame of each target token on CTC's best path through the targets.

    A token of several frames has the one with its highest probability.

    Args:
        logp: Log-probabilities, ``(B, T, V)``; padding may hold any value.
        hlens: Valid frames, ``(B,)`` integer.
        ys_pad: Target tokens, ``(B, U)`` int64; any value in padding.
        ys_lens: Tokens of each utterance, ``(B,)`` integer.
        blank: Index of the blank.

    Returns:
        Frames, ``(B, U)`` int64; -1 in padding and for utterances that have too few
        frames for their tokens.

    Example:
        >>> import torch
        >>> path = torch.tensor([[0, 2, 2, 0, 1]])
        >>> logp = torch.nn.functional.one_hot(path, 3).float().log_softmax(-1)
        >>> ys_pad, ys_lens = torch.tensor([[2, 1]]), torch.tensor([2])
        >>> ctc_spikes(logp, torch.tensor([5]), ys_pad, ys_lens).tolist()
        [[1, 4]]
    """
    n_batch, n_frames, _ = logp.shape
    device, n_tokens = logp.device, ys_pad.size(1)
    hlens, ys_lens = hlens.to(device), ys_lens.to(device)
    places = torch.arange(n_tokens, device=device)
    frames = torch.arange(n_frames, device=device)
    if n_tokens == 0 or n_frames == 0:
        return ys_pad.new_full(ys_pad.shape, -1)
    tokens = ys_pad.masked_fill(places >= ys_lens[:, None], blank)
    states = tokens.new_full((n_batch, 2 * n_tokens + 1), blank)
    states[:, 1::2] = tokens
    scores = logp.float().gather(2, states[:, None].expand(-1, n_frames, -1))
    running = frames < hlens[:, None]  # (B, T)
    scores = scores.masked_fill(~running[..., None], 0.0)
    # From the state two before: only into a token that differs from the last one.
    jump_score = scores.new_full(states.shape, -torch.inf)
    jump_score[:, 3::2].masked_fill_(tokens[:, 1:] != tokens[:, :-1], 0.0)

    # Two columns without a path before the first state.
    best = scores.new_full((n_batch, states.size(1) + 2), -torch.inf)
    best[:, 2:4] = scores[:, 0, :2]
    steps = []  # how many states each frame goes forward
    for t in range(1, n_frames):
        stay, one, two = best[:, 2:], best[:, 1:-1], best[:, :-2] + jump_score
        highest, step = torch.maximum(stay, one), (one > stay).to(torch.uint8)
        jumps = two > highest
        highest = torch.where(jumps, two, highest) + scores[:, t]
        steps.append(step.masked_fill_(jumps, 2) * running[:, t, None])
        best[:, 2:] = torch.where(running[:, t, None], highest, stay)
    best = best[:, 2:]

    last = 2 * ys_lens.long()[:, None]
    ends = torch.cat([last, (last - 1).clamp(min=0)], dim=1)
    score, chosen = best.gather(1, ends).max(dim=1)
    state = ends.gather(1, chosen[:, None])
    path = [state]
    for step in reversed(steps):
        state = state - step.gather(1, state)
        path.append(state)
    at = torch.cat(path[::-1], dim=1)  # (B, T)
    within = at[:, None] == 2 * places[:, None] + 1  # (B, U, T)
    within &= running[:, None]
    token_scores = scores[..., 1::2].transpose(1, 2)
    spikes = token_scores.masked_fill(~within, -torch.inf).argmax(dim=2)
    known = (places < ys_lens[:, None]) & score.isfinite()[:, None]
    return spikes.masked_fill(~known, -1)


def ctc_guide_loss(alpha: Tensor, spikes: Tensor, slack: float = 0.5) -> Tensor:
    """Return how far the running sum of alpha is from its tokens at their spikes.

    Token u, counted from 0, owns the interval [u, u + 1] of the running sum. The sum up
    to the middle of the token's spike should be in the middle of the interval, or at
    most ``slack`` away from it: 0.5 allows the complete interval.

    Args:
        alpha: Weights that are scaled to the number of tokens, ``(B, T)``, float32 or
            float64; 0 in padding.
        spikes: Frames of :func:`ctc_spikes`, ``(B, U)``.
        slack: Distance without a loss, in tokens.

    Returns:
        The sum of the distances beyond ``slack`` over all tokens with a spike, in
        tokens; a scalar with the dtype of alpha.

    Example:
        >>> import torch
        >>> alpha = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.5]])
        >>> ctc_guide_loss(alpha, torch.tensor([[0, 1]])).item()
        0.0
        >>> ctc_guide_loss(alpha, torch.tensor([[1, 4]]), slack=0.25).item()
        0.75
    """
    middles = alpha.cumsum(dim=1) - alpha / 2
    reached = middles.gather(1, spikes.clamp(min=0))  # (B, U)
    wanted = torch.arange(spikes.size(1), device=alpha.device) + 0.5
    beyond = ((reached - wanted).abs() - slack).clamp(min=0)
    return beyond.masked_fill(spikes < 0, 0.0).sum()
