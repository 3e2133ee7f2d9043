"""CTC's forced alignment of a batch, in plain torch.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    frames, padded
U    target tokens, padded
S    2U + 1, states of CTC: blank, token 1, blank, …, token U, blank
V    vocabulary
===  =====================================================================
"""

import torch
from torch import Tensor


@torch.no_grad()
def ctc_alignment(
    logp: Tensor, hlens: Tensor, ys_pad: Tensor, ys_lens: Tensor, blank: int = 0
) -> Tensor:
    """Return the token of each frame on CTC's best path through the targets.

    Viterbi's algorithm with one loop over frames for all utterances; it reads nothing
    back from the device.

    Args:
        logp: Log-probabilities, ``(B, T, V)``; padding may hold any value.
        hlens: Valid frames, ``(B,)`` integer.
        ys_pad: Target tokens, ``(B, U)`` int64; any value in padding.
        ys_lens: Tokens of each utterance, ``(B,)`` integer.
        blank: Index of the blank.

    Returns:
        Places of the tokens in ``ys_pad``, ``(B, T)`` int64; -1 for blanks, in padding,
        and for utterances that have too few frames for their tokens.

    Example:
        >>> import torch
        >>> path = torch.tensor([[0, 2, 2, 0, 1]])
        >>> logp = torch.nn.functional.one_hot(path, 3).float().log_softmax(-1)
        >>> ys_pad, ys_lens = torch.tensor([[2, 1]]), torch.tensor([2])
        >>> ctc_alignment(logp, torch.tensor([5]), ys_pad, ys_lens).tolist()
        [[-1, 0, 0, -1, 1]]
    """
    n_batch, n_frames, _ = logp.shape
    device, n_tokens = logp.device, ys_pad.size(1)
    hlens, ys_lens = hlens.to(device).long(), ys_lens.to(device).long()
    if n_batch == 0 or n_tokens == 0 or n_frames == 0:
        return hlens.new_full((n_batch, n_frames), -1)
    places = torch.arange(n_tokens, device=device)
    running = torch.arange(n_frames, device=device) < hlens[:, None]  # (B, T)
    tokens = ys_pad.masked_fill(places >= ys_lens[:, None], blank)
    states = tokens.new_full((n_batch, 2 * n_tokens + 1), blank)
    states[:, 1::2] = tokens
    scores = logp.gather(2, states[:, None].expand(-1, n_frames, -1)).float()
    scores = scores.masked_fill(~running[..., None], 0.0).transpose(0, 1)  # (T, B, S)
    # From the state two before: only into a token that differs from the last one.
    jump = scores.new_full(states.shape, -torch.inf)
    jump[:, 3::2].masked_fill_(tokens[:, 1:] != tokens[:, :-1], 0.0)

    # Two columns without a path before the first state.
    best = scores.new_full((n_frames, n_batch, states.size(1) + 2), -torch.inf)
    best[0, :, 2:4] = scores[0, :, :2]
    for t in range(1, n_frames):
        old = best[t - 1]
        highest = torch.maximum(old[:, 2:], old[:, 1:-1])
        torch.maximum(highest, old[:, :-2] + jump, out=highest)
        torch.add(highest, scores[t], out=best[t, :, 2:])

    # How many states each frame goes forward; 0 in padding.
    stay, one, two = best[:-1, :, 2:], best[:-1, :, 1:-1], best[:-1, :, :-2] + jump
    steps = (one > stay).long().masked_fill_(two > torch.maximum(stay, one), 2)
    steps *= running.t()[1:, :, None]
    final = (hlens - 1).clamp(min=0)
    reached = best[final, torch.arange(n_batch, device=device), 2:]  # (B, S)
    last = 2 * ys_lens[:, None]
    ends = torch.cat([last, (last - 1).clamp(min=0)], dim=1)
    score, chosen = reached.gather(1, ends).max(dim=1)
    state = ends.gather(1, chosen[:, None])
    path = [state]
    for step in reversed(steps.unbind(0)):
        state = state - step.gather(1, state)
        path.append(state)
    at = torch.cat(path[::-1], dim=1)  # (B, T)
    known = running & (at % 2 == 1) & (score > -torch.inf)[:, None]
    return torch.where(known, at // 2, -1)


def middle_frames(alignment: Tensor) -> Tensor:
    """Keep the middle frame of each token of an alignment; others become -1.

    Of an even number of frames it is the earlier one of the middle two.

    Args:
        alignment: Result of :func:`ctc_alignment`, ``(B, T)``.

    Example:
        >>> import torch
        >>> middle_frames(torch.tensor([[-1, 0, 0, 0, 1, 1, -1, 2]])).tolist()
        [[-1, -1, 0, -1, 1, -1, -1, 2]]
    """
    n_frames = alignment.size(1)
    frames = torch.arange(n_frames, device=alignment.device)
    before = torch.nn.functional.pad(alignment[:, :-1], (1, 0), value=-1)
    after = torch.nn.functional.pad(alignment[:, 1:], (0, 1), value=-1)
    first = torch.where(alignment != before, frames, 0).cummax(dim=1).values
    last = torch.where(alignment != after, frames, n_frames)
    last = last.flip(1).cummin(dim=1).values.flip(1)
    middle = (first + last) // 2
    return torch.where(frames == middle, alignment, -1)
