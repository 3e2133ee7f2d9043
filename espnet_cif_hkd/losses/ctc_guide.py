"""CTC as a guide of integrate-and-fire.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    encoder frames, padded
U    target tokens without ``<eos>``, padded
V    vocabulary
===  =====================================================================

Source: the idea that the spikes of CTC guide the boundaries of integrate-and-fire is
that of arXiv 2104.04702. The loss and the use of the forced alignment are ours.
"""

import torch
from torch import Tensor

from espnet_cif_hkd.losses.ctc_alignment import ctc_alignment

_LEAST = 1e-7


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
    n_tokens, device = ys_pad.size(1), logp.device
    if n_tokens == 0 or logp.size(1) == 0:
        return ys_pad.new_full(ys_pad.shape, -1)
    at = ctc_alignment(logp, hlens, ys_pad, ys_lens, blank)  # (B, T)
    places = torch.arange(n_tokens, device=device)
    tokens = ys_pad.masked_fill(places >= ys_lens.to(device)[:, None], blank)
    frames = tokens[:, None].expand(-1, logp.size(1), -1)
    return likeliest_frames(at, logp.gather(2, frames).float().transpose(1, 2))


def likeliest_frames(at: Tensor, scores: Tensor) -> Tensor:
    """Return the frame of each token in which its score is highest.

    Args:
        at: The token to which each frame belongs, ``(B, T)`` int64; -1: to none.
        scores: Of each token in each frame, ``(B, U, T)``, T at least 1.

    Returns:
        Frames, ``(B, U)`` int64, the first of equal ones; -1 without a frame.

    Example:
        >>> import torch
        >>> at = torch.tensor([[0, 0, -1, 1]])
        >>> likeliest_frames(at, torch.tensor([[[1.0, 2, 9, 9]] * 3])).tolist()
        [[1, 3, -1]]
    """
    tokens = torch.arange(scores.size(1), device=at.device)
    within = at[:, None] == tokens[:, None]  # (B, U, T)
    frames = scores.masked_fill(~within, -torch.inf).argmax(dim=2)
    return frames.masked_fill(~within.any(dim=2), -1)


def ctc_drift(alpha: Tensor, spikes: Tensor) -> Tensor:
    """Return how far the running sum of alpha is from each token at its spike.

    Token u, counted from 0, owns the interval [u, u + 1] of the running sum. The drift
    is the sum up to the middle of the token's spike minus the middle of the interval.

    Args:
        alpha: Weights that are scaled to the number of tokens, ``(B, T)``; 0 in
            padding.
        spikes: Frames of :func:`ctc_spikes`, ``(B, U)``.

    Returns:
        Tokens, ``(B, U)``, negative if the firing is late; 0 where there is no spike.

    Example:
        >>> import torch
        >>> alpha = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
        >>> ctc_drift(alpha, torch.tensor([[0, 1, -1]])).tolist()
        [[0.0, -0.5, 0.0]]
    """
    middles = alpha.cumsum(dim=1) - alpha / 2
    reached = middles.gather(1, spikes.clamp(min=0))  # (B, U)
    wanted = torch.arange(spikes.size(1), device=alpha.device) + 0.5
    return (reached - wanted).masked_fill(spikes < 0, 0.0)


def ctc_guide_loss(alpha: Tensor, spikes: Tensor, slack: float = 0.5) -> Tensor:
    """Return how far the running sum of alpha is from its tokens at their spikes.

    Each token's :func:`ctc_drift` should be at most ``slack``: 0.5 allows the complete
    interval of the token.

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
    return (ctc_drift(alpha, spikes).abs() - slack).clamp(min=0).sum()


def ctc_spike_loss(alpha: Tensor, spikes: Tensor) -> Tensor:
    """Return the binary cross-entropy of the weights of frames, 1 at spikes, else 0.

    Frames after the last spike have no loss: ``<eos>``, which CTC does not know, fires
    there.

    Args:
        alpha: Unscaled weights, ``(B, T)``, float32 or float64.
        spikes: Frames of :func:`ctc_spikes`, ``(B, U)``.

    Returns:
        The sum over all frames, in nats; a scalar with the dtype of alpha.

    Example:
        >>> import torch
        >>> alpha = torch.tensor([[0.5, 0.5, 0.9]])
        >>> round(ctc_spike_loss(alpha, torch.tensor([[1, -1]])).item(), 4)
        1.3863
    """
    n_frames = alpha.size(1)
    if n_frames == 0 or spikes.size(1) == 0:
        return alpha.sum() * 0
    places = torch.arange(n_frames, device=alpha.device)
    is_spike = (spikes[:, None] == places[:, None]).any(dim=2)  # (B, T)
    counted = places <= spikes.max(dim=1, keepdim=True).values
    chance = torch.where(is_spike, alpha, 1 - alpha)
    # At most 16 nats a frame, also for weights that rounding has made greater than 1.
    loss = -chance.clamp(min=_LEAST, max=1.0).log()
    return loss.masked_fill(~counted, 0.0).sum()
