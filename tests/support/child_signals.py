"""Signals of processes that tests start, whatever started the tests."""

import signal


def default_signals() -> None:
    """Let all signals that stop a process stop it; for ``preexec_fn``.

    ``nohup`` and background jobs of a shell ignore some of them, and children inherit
    that.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
