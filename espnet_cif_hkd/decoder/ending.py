"""When a search over fired tokens ends."""

import torch

# ESPnet's own value for what must not be chosen: finite, so that sums stay numbers.
_LOG_ZERO = -1e10


def is_too_early(step: int, lengths: torch.Tensor, eos_slack: int) -> torch.Tensor:
    """Where ``<eos>`` may not yet be chosen, ``(N,)``: :func:`mask_by_fired_length`."""
    return step < lengths - 1 - eos_slack


def mask_by_fired_length(
    logp: torch.Tensor, step: int, lengths: torch.Tensor, eos: int, eos_slack: int
) -> torch.Tensor:
    """Let the fired length, not the score of ``<eos>`` alone, end a hypothesis.

    L vectors fired, the last of them usually for ``<eos>``. A tail under the threshold
    may have swallowed that one, so ``<eos>`` must not be forced as token L; and an
    ``<eos>`` far too early would compare a short sum of scores with long ones. So:

    - before step ``L - 1 - eos_slack``, ``<eos>`` cannot be chosen;
    - from there to step L - 1 it has its own probability, as any token;
    - from step L on it is certain and costs nothing.

    Args:
        logp: Log-probabilities of the next token, ``(N, V)``; changed in place, for
            copies of all hypotheses times the vocabulary cost more than the rule.
        step: Tokens each hypothesis has already.
        lengths: L of each hypothesis, ``(N,)`` on the CPU, so that no step waits for
            a GPU to find that the rule says nothing.
        eos: Index of ``<eos>``.
        eos_slack: Tokens before the last fired one at which ``<eos>`` may come.

    Returns:
        ``logp``.
    """
    log_zero = max(_LOG_ZERO, torch.finfo(logp.dtype).min / 4)
    early = is_too_early(step, lengths, eos_slack)  # (N,)
    over = step >= lengths  # (N,)
    if early.any():
        logp[:, eos].masked_fill_(early.to(logp.device), log_zero)
    if over.any():
        over = over.to(logp.device)
        logp.masked_fill_(over[:, None], log_zero)
        logp[:, eos].masked_fill_(over, 0.0)
    return logp
