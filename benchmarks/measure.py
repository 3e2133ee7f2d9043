"""Time, memory and tables, shared by all benchmarks.

Alternatives take turns, run by run, because machines are noisy. Figures are medians
over the runs of one process and should be read as ratios.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_SMALL_ALLOCATIONS = 1 << 16  # bytes: glibc may keep smaller freed blocks
_DEVICE = "BENCHMARK_DEVICE"  # an environment variable, so that alone() passes it on


class Figures:
    """The numbers of a benchmark, for programs to read.

    The file is complete after every :meth:`add`: a benchmark that is stopped keeps
    what it has measured.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict[str, object]] = []

    def add(self, name: str, value: float, unit: str) -> None:
        """Record one figure."""
        self.rows.append({"name": name, "value": float(value), "unit": unit})
        if self.path is not None:
            partial = self.path.with_name(f"{self.path.name}.partial")
            partial.write_text(json.dumps(self.rows, indent=1) + "\n", "utf-8")
            partial.replace(self.path)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--json``, which :func:`use_options` reads."""
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: the GPU where there is one"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures to FILE"
    )


def use_options(args: argparse.Namespace) -> Figures:
    """Choose the device; return where to record figures."""
    if args.device:
        os.environ[_DEVICE] = args.device
    return Figures(args.json)


def device() -> torch.device:
    """What ``--device`` names, else the GPU where there is one."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(os.environ.get(_DEVICE) or found)


def on_gpu() -> bool:
    return device().type == "cuda"


def describe(*distributions: str, threads: int = 2) -> str:
    """Set the number of threads; return a line that describes the machine."""
    torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if on_gpu() else _processor()
    versions = [f"{d} {_version(d)}" for d in ("torch", *distributions)]
    return (
        f"{name}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, {', '.join(versions)}, "
        f"{time.strftime('%Y-%m-%d')}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each run; every alternative runs once in each round.

    With one thread, ``time.process_time`` does not depend on other processes as much.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + repeats):
        for name, way in ways.items():
            _wait()
            start = clock()
            way()
            _wait()
            if turn >= warm_up:
                times[name].append(clock() - start)
    return times


def own_clock() -> Callable[[], float]:
    """A clock of this process, for one thread; with a GPU a clock on the wall."""
    return time.perf_counter if on_gpu() else time.process_time


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(runs) for name, runs in times.items()}


def _wait() -> None:
    if on_gpu():
        torch.cuda.synchronize()


def peak_bytes(way: Callable[[], object]) -> int:
    """Peak memory of one run in addition to the memory before it.

    On the CPU, call it in a process of :func:`alone`, where freed tensors return to
    the system at once. The resident set is counted, without untouched pages.
    """
    way()  # thread pools and caches of the first run are not counted
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    way()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def alone(script: str, *arguments: str) -> str:
    """Run a benchmark in a process of its own; return the last line it prints."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(_SMALL_ALLOCATIONS)}
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three digits."""
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    lines += [" | ".join(map(_shown, row)) for row in rows]
    return "\n".join(
        f"| {line} |" if i != 1 else f"|{line}|" for i, line in enumerate(lines)
    )


def _shown(cell: object) -> str:
    if cell is None:
        return "–"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
