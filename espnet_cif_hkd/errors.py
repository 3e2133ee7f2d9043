"""Errors that a user can mend."""


class UserError(ValueError):
    """Bad input, told in one line that names the thing and how to mend it.

    Commands print the message as ``error: …`` and exit with status 1.
    """
