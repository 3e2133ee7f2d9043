"""What checks find: one line each."""

from dataclasses import dataclass

from espnet_cif_hkd.errors import UserError, one_line

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        level: ``ok``, ``warn`` or ``FAIL``.
        subject: What was checked, in one or two words.
        message: One line; of a fault also how to fix it.
    """

    level: str
    subject: str
    message: str


def caught(subject: str, error: Exception) -> Finding:
    """Return a fault in one line."""
    reason = one_line(error, 300) or type(error).__name__
    if not isinstance(error, UserError):
        reason = f"{type(error).__name__}: {reason}"
    return Finding(FAIL, subject, reason)
