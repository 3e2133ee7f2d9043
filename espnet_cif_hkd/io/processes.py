"""Child processes that end when this one ends, and the signals that end it."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

# Set for tied children of start(): the process that they must not outlive.
PARENT_VARIABLE = "ESPNET_CIF_HKD_PARENT"
# Seconds between the request to end and the end by force.
GRACE = 10.0
_PR_SET_PDEATHSIG = 1


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        number: the signal; the exit status is 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def signals_stop() -> Iterator[None]:
    """Let SIGTERM, SIGHUP and SIGINT raise :class:`Stopped` in this block.

    A signal that the caller ignores (``nohup``) stays ignored. Outside of the main
    thread nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {
        number: signal.signal(number, stop)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler or signal.SIG_DFL)


def start(
    command: Sequence[str],
    output: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    tied: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start a command in a process group of its own, for :func:`stop`.

    Args:
        command: the program and its arguments.
        output: where its standard output and error go; None means those of this
            process.
        environment: added to that of this process.
        tied: ask it, by PARENT_VARIABLE, to call :func:`die_with_parent`.
    """
    variables = {**os.environ, **(environment or {})}
    variables.pop(PARENT_VARIABLE, None)
    if tied:
        variables[PARENT_VARIABLE] = str(os.getpid())
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        env=variables,
        start_new_session=True,
    )


def stop(processes: Sequence["subprocess.Popen[bytes]"], grace: float = GRACE) -> None:
    """End processes of :func:`start` and all processes that they have started.

    SIGTERM asks them to end. After ``grace`` seconds, or when this process gets
    another signal, SIGKILL ends what is left.
    """
    # The number of a process that has been waited for may belong to another one.
    running = [process for process in processes if process.returncode is None]
    try:
        for process in running:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while any(map(_has_members, running)) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for process in running:
            if _has_members(process):
                _signal(process, signal.SIGKILL)
            process.wait()


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command to its end; it ends, with its children, when this process does.

    Returns:
        its exit status.
    """
    process = start(command, environment=environment)
    try:
        return process.wait()
    finally:
        stop([process])


def die_with_parent(parent: int) -> None:
    """Let this process get SIGTERM when its parent ends in any way (Linux only).

    Args:
        parent: the parent's number; for a grandchild nothing changes.
    """
    if os.getppid() == parent:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent and not is_running(parent):
        os.kill(os.getpid(), signal.SIGTERM)


def is_running(pid: int) -> bool:
    """Whether there is a process with this number, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _has_members(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process of the group runs; one that has ended is waited for."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
