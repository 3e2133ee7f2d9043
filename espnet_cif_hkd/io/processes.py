"""Child processes that end with this process, and signals that stop it."""

import ctypes
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, ClassVar

# Environment of tied children of start(): the process with which they must end.
PARENT_VARIABLE = "ESPNET_CIF_HKD_PARENT"
# Environment of processes that SSH has started: end when nobody reads the output.
OUTPUT_VARIABLE = "ESPNET_CIF_HKD_ENDS_WITH_OUTPUT"
# Seconds between SIGTERM and SIGKILL.
GRACE = 10.0
_PR_SET_PDEATHSIG = 1


class Stopped(KeyboardInterrupt):
    """A signal stopped this process.

    Attributes:
        number: number of the signal; the exit status is 128 + number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Held:
    """Signals that arrive while a process is being started."""

    active = False
    numbers: ClassVar[list[int]] = []


@contextmanager
def signals_held() -> Iterator[None]:
    """Let the signals of :func:`signals_stop` wait until the end of this block.

    For the start of a process: a signal between the start and the assignment of the
    result would leave a process that nobody stops.
    """
    before, _Held.active = _Held.active, True
    try:
        yield
    finally:
        _Held.active = before
        if not before and _Held.numbers:
            number = _Held.numbers[0]
            _Held.numbers.clear()
            raise Stopped(number)


@contextmanager
def signals_stop() -> Iterator[None]:
    """Make SIGTERM, SIGHUP and SIGINT raise :class:`Stopped` in this block.

    A signal that the caller ignores (``nohup``) stays ignored. In another thread than
    the main thread it does nothing.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if not _Held.active:
            raise Stopped(number)
        _Held.numbers.append(number)

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
    """Start a command in a new process group, for :func:`stop`.

    Args:
        command: program and arguments.
        output: file for standard output and error; None: those of this process.
        environment: variables to add to those of this process.
        tied: set PARENT_VARIABLE, so that the child calls :func:`die_with_parent`.
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

    They get SIGTERM. After ``grace`` seconds, or if this process gets another signal,
    the remaining ones get SIGKILL.
    """
    # After wait() or poll() the number of a process may belong to another process.
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


def status_of(process: "subprocess.Popen[bytes]", block: bool = False) -> int | None:
    """Return the exit status of a process of :func:`start`; None while it runs.

    Unlike ``wait()`` and ``poll()`` it leaves the number of the process to it, so that
    :func:`stop` ends the processes that it has started.

    Args:
        process: The process.
        block: Wait for its end.
    """
    if process.returncode is not None or not hasattr(os, "waitid"):  # macOS
        return process.wait() if block else process.poll()
    options = os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG)
    ended = os.waitid(os.P_PID, process.pid, options)
    if ended is None:
        return None
    by_itself = ended.si_code == os.CLD_EXITED
    return ended.si_status if by_itself else -ended.si_status


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command; it and its children end when this process ends, or if it fails.

    Returns:
        The exit status.
    """
    process = None
    try:
        with signals_held():
            process = start(command, environment=environment)
        if status_of(process, block=True) == 0:
            process.wait()
    finally:
        if process is not None:
            stop([process])
    return process.returncode


def die_with_parent(parent: int) -> None:
    """Make the system send SIGTERM to this process when its parent ends (Linux only).

    Args:
        parent: process number of the parent; nothing happens for a grandchild.
    """
    if os.getppid() == parent:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent and not is_running(parent):
        os.kill(os.getpid(), signal.SIGTERM)


def end_with_output() -> None:
    """Make this process end with SIGTERM when nobody reads its standard error.

    For a process on another machine: SSH closes its end when the caller has ended. A
    standard error that is a file changes nothing.
    """

    def wait() -> None:
        errors = select.poll()
        errors.register(2, 0)  # a closed end is always reported
        errors.poll()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def is_running(pid: int) -> bool:
    """Whether a process with this number exists, of any user."""
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
    """Whether a process of the group runs; reaps one that has ended."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
