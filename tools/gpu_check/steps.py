"""Run commands one after the other, each with a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

_TICK = 0.1  # seconds
_SIGN_OF_LIFE = 10.0  # seconds
_GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_LEAST = 3.0  # seconds; with less left, a step is not started


def say(message: str) -> None:
    """Print a dated line."""
    print(f"{datetime.now():%H:%M:%S} {message}", flush=True)


@dataclass
class Step:
    """A command.

    Attributes:
        name: Name in the report.
        command: Program and arguments.
        limit: Time limit in seconds.
        cwd: Working directory.
        environment: Environment variables; None: those of this process.
        stops_at_limit: Whether a stop at the limit is no failure.
        may_stop: Called at the limit; False delays the stop by at most ``_GRACE``.
    """

    name: str
    command: Sequence[str]
    limit: float
    cwd: Path | None = None
    environment: Mapping[str, str] | None = None
    stops_at_limit: bool = False
    may_stop: Callable[[], bool] = field(default=lambda: True)


@dataclass
class Result:
    """Result of a step; ``outcome`` is passed, failed, overran, stopped or not run.

    Attributes:
        seconds: Wall time in seconds.
        limit: Time limit in seconds.
        message: Reason of a failure; empty if it passed.
    """

    name: str
    outcome: str
    seconds: float
    limit: float
    message: str = ""

    @property
    def good(self) -> bool:
        return self.outcome in ("passed", "stopped")


class Runner:
    """Runs steps within a total time.

    Args:
        limit: Total time in seconds, from now.
        logs: Folder that receives ``NAME.log`` of each step.
    """

    def __init__(self, limit: float, logs: Path) -> None:
        self.logs = logs
        self.begun = time.monotonic()
        self.end = self.begun + limit
        self._groups: set[int] = set()
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name.replace(' ', '_')}.log"

    def run(self, step: Step) -> Result:
        """Run a step; a failure of the step raises no exception."""
        limit = min(step.limit, self.left)
        if limit < _LEAST:
            say(f"{step.name}: not run, no time is left")
            return Result(step.name, "not run", 0.0, max(limit, 0.0), "no time left")
        say(f"{step.name}: begins, at most {limit:.0f} s")
        begun = time.monotonic()
        log = self.log_of(step.name)
        try:
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    step.command,
                    cwd=step.cwd,
                    env=step.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            say(f"{step.name}: FAILED, cannot be started: {error}")
            return Result(step.name, "failed", 0.0, limit, f"not started: {error}")
        self._groups.add(process.pid)
        try:
            outcome, message = self._watch(step, process, begun, limit)
        finally:
            _signal(process.pid, signal.SIGKILL)  # remaining processes of the step
            self._groups.discard(process.pid)
        seconds = time.monotonic() - begun
        shown = outcome if outcome in ("passed", "stopped") else outcome.upper()
        say(f"{step.name}: {shown}, {seconds:.1f} s{message and ', '}{message}")
        return Result(step.name, outcome, seconds, limit, message)

    def _watch(
        self, step: Step, process: subprocess.Popen[bytes], begun: float, limit: float
    ) -> tuple[str, str]:
        log, shown = self.log_of(step.name), begun
        while process.poll() is None:
            time.sleep(_TICK)
            now = time.monotonic()
            if now - shown >= _SIGN_OF_LIFE:
                shown = now
                say(f"  … {step.name}, {now - begun:.0f} s: {last_line(log)}")
            late = now - begun - limit
            if late < 0 or (late < _GRACE and not step.may_stop()):
                continue
            _signal(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            _signal(process.pid, signal.SIGKILL)
            process.wait()
            if step.stops_at_limit:
                return "stopped", ""
            return "overran", f"stopped after {limit:.0f} s: {last_line(log)}"
        if process.returncode == 0:
            return "passed", ""
        return "failed", f"exit status {process.returncode}: {last_line(log)}"

    def together(self, steps: Sequence[Step]) -> list[Result]:
        """Run steps at the same time; return results in their order."""
        results: dict[int, Result] = {}
        threads = [
            threading.Thread(target=lambda n=n, s=s: results.update({n: self.run(s)}))
            for n, s in enumerate(steps)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[n] for n in range(len(steps))]

    def abandon(self) -> None:
        """Stop all running steps immediately."""
        for group in list(self._groups):
            _signal(group, signal.SIGKILL)


def fair_limit(own: float, left: float, later: float) -> float:
    """Return a time limit in seconds that leaves time for the later steps.

    It is at least the share of the step in the limits of itself and the later steps.

    Args:
        own: Limit of the step in seconds.
        left: Remaining total time in seconds.
        later: Sum of the limits of later steps; half of it is reserved for them.
    """
    return min(own, max(left - later / 2, left * own / (own + later)))


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def last_line(path: Path, width: int = 120) -> str:
    """Return the last line of a log that is not blank."""
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 4096))
        text = stream.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:width] if lines else ""
