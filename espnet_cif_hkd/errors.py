"""Errors that a user can fix."""


class UserError(ValueError):
    """Bad input: one line that names the cause, the place and the fix.

    Commands print the message as ``error: …`` and exit with status 1.
    """
