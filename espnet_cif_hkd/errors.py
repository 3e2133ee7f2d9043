"""Errors that a user can fix."""


class UserError(ValueError):
    """Bad input: one line that names the cause, the place and the fix.

    Commands print the message as ``error: …`` and exit with status 1.
    """


def one_line(message: object, most: int | None = None) -> str:
    """Return the text of an error without line breaks.

    Args:
        message: The error, or its text.
        most: Most characters; None: all.

    Example:
        >>> one_line(OSError("two\\n  lines"), most=7)
        'two lin'
    """
    return " ".join(str(message).split())[:most]
