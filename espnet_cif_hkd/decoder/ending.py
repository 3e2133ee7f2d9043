"""The end of a search over fired tokens."""

import torch

from espnet_cif_hkd.errors import UserError

# ESPnet's value for tokens that must not be chosen: finite, so that sums are finite.
_LOG_ZERO = -1e10


def checked_slack(eos_slack: object) -> int:
    """Return the option ``eos_slack``.

    Raises:
        UserError: It is not an integer of at least 0.
    """
    if type(eos_slack) is not int or eos_slack < 0:
        raise UserError(
            f"decoder_conf: eos_slack is {eos_slack!r}; it must be a number of tokens, "
            "an integer >= 0"
        )
    return eos_slack


def is_too_early(
    step: int | torch.Tensor, lengths: torch.Tensor, eos_slack: int
) -> torch.Tensor:
    """True where ``<eos>`` is too early, ``(N,)``: :func:`mask_by_fired_length`."""
    return step < lengths - 1 - eos_slack


def mask_by_fired_length(
    logp: torch.Tensor, step: int, lengths: torch.Tensor, eos: int, eos_slack: int
) -> torch.Tensor:
    """End a hypothesis by its fired length, not by the score of ``<eos>`` alone.

    L vectors fired; the last one is usually for ``<eos>``. A tail below the threshold
    does not fire, then ``<eos>`` has no vector: so ``<eos>`` is not forced as token L.
    A very early ``<eos>`` would win, because its sum of scores is short. So:

    - before step ``L - 1 - eos_slack``, ``<eos>`` cannot be chosen;
    - from there to step L - 1 it has its own probability, as any token;
    - from step L on it has probability 1.

    Args:
        logp: Log-probabilities of the next token, ``(N, V)``; changed in place, because
            a copy costs more than the rule.
        step: Number of tokens of each hypothesis.
        lengths: L of each hypothesis, ``(N,)`` on the CPU, so that a step without
            effect does not wait for the GPU.
        eos: Index of ``<eos>``.
        eos_slack: Number of tokens before the last fired one at which ``<eos>`` may
            come.

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
