"""Run ESPnet's commands: in this process if possible, else as jobs."""

import contextlib
import importlib
import io
import logging
import os
import shlex
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.io import processes
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.missing import how_to_install, missing_named
from espnet_cif_hkd.recipe.machines import (
    INIT_PREFIX,
    ONE_MACHINE,
    Machines,
    training_command,
)
from espnet_cif_hkd.recipe.progress import EVERY, Echo, Follower, Progress

_LOG_FORMAT = "%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s"
_HOST = f"[{os.uname()[1].split('.')[0]}] "


@contextlib.contextmanager
def logged_to(path: Path, what: str, prefix: str = "") -> Iterator[None]:
    """Redirect logging, stdout and stderr of this process to ``path``.

    ESPnet's commands call ``logging.basicConfig``, which does nothing if the root
    logger has a handler. So the handlers are replaced around each command, and each
    command writes the same log file as in a separate process.
    """
    root = logging.getLogger()
    saved, level = root.handlers[:], root.level
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", buffering=1) as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(prefix + _LOG_FORMAT))
        root.handlers[:] = [handler, Echo(Progress(what))]
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                yield
        finally:
            root.handlers[:] = saved
            root.setLevel(level)


def rotate(path: Path, keep: int = 10) -> None:
    """Rename old logs: ``x.log`` to ``x.1.log``, ``x.1.log`` to ``x.2.log``, …"""
    for index in range(keep, -1, -1):
        old = path if index == 0 else path.with_suffix(f".{index}{path.suffix}")
        if old.exists():
            old.replace(path.with_suffix(f".{index + 1}{path.suffix}"))


def import_espnet() -> None:
    """Import ESPnet and register our classes; log the reason for the delay."""
    if "espnet2.tasks.asr" in sys.modules:
        from espnet_cif_hkd import register

        register()
        return
    log("importing ESPnet (10 to 20 seconds)")
    # Warnings of its dependencies are not useful in a recipe.
    noise = io.StringIO()
    try:
        with (
            missing_named(),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(noise),
            contextlib.redirect_stdout(noise),
        ):
            warnings.simplefilter("ignore")
            from espnet_cif_hkd import register

            register()
            importlib.import_module("espnet2.tasks.asr")
    except ImportError as error:
        raise UserError(
            f"ESPnet cannot be imported ({error}); run: {how_to_install('espnet2')}"
        ) from error


def _tail(path: Path, lines: int = 15) -> str:
    with path.open("rb") as stream:
        stream.seek(0, io.SEEK_END)
        stream.seek(max(0, stream.tell() - 8192))
        text = stream.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])


def failed(what: str, path: Path, why: object) -> UserError:
    """Return the error of a failed command; print the end of its log."""
    tail = _tail(path)
    if tail:
        print(tail, file=sys.stderr)
    reason = one_line(why) or type(why).__name__
    return UserError(f"{what} failed ({reason[:300]}): the log is {path}")


def call(module: str, arguments: Sequence[str], log_file: Path, what: str) -> None:
    """Run ``python3 -m module arguments`` inside this process.

    Args:
        module: a module of ESPnet with ``main(cmd)``.
        arguments: the command line.
        log_file: file for logging, stdout and stderr.
        what: name of the task, for messages.

    Raises:
        UserError: the command failed; the end of its log is printed.
    """
    if module != "espnet2.bin.tokenize_text":
        import_espnet()
    main = importlib.import_module(module).main
    # Only log lines of trainings begin with the host, and tools expect it there.
    prefix = _HOST if module.endswith("_train") else ""
    try:
        with logged_to(log_file, what, prefix):
            print("# python3 -m", module, shlex.join(arguments))
            main(list(arguments))
    except UserError:
        raise
    except SystemExit as error:
        if error.code not in (None, 0):
            raise failed(what, log_file, _parser_error(log_file)) from error
    except Exception as error:
        with log_file.open("a", encoding="utf-8") as stream:
            traceback.print_exc(file=stream)
        raise failed(what, log_file, f"{type(error).__name__}: {error}") from error


def _parser_error(path: Path) -> str:
    for line in reversed(_tail(path).splitlines()):
        if ": error: " in line:
            return line.split(": error: ", 1)[1]
    return "see the log"


def job_count(wanted: int, items: int, items_per_job: int) -> int:
    """Return the number of processes, given their start-up of 10 to 20 seconds."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(wanted, cores, items // items_per_job))


def run_jobs(
    module: str, jobs: Sequence[tuple[Sequence[str], Path]], what: str
) -> None:
    """Run one process per (arguments, log file) at the same time, and wait.

    Each process runs through the launcher of this package, which registers our classes,
    and uses one thread. All of them end when this process ends.
    """
    ours = [sys.executable, "-m", "espnet_cif_hkd", "-m", module]
    _run_commands([([*ours, *words], log_file) for words, log_file in jobs], what)


def _run_commands(
    commands: Sequence[tuple[Sequence[str], Path]], what: str, tied: bool = True
) -> None:
    running: dict[subprocess.Popen[bytes], Follower] = {}
    progress, threads = Progress(what), {"OMP_NUM_THREADS": "1"}
    try:
        for command, log_file in commands:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            with log_file.open("wb") as stream:
                stream.write(f"# {shlex.join(command)}\n".encode())
                stream.flush()
                with processes.signals_held():
                    job = processes.start(command, stream, threads, tied)
                    running[job] = Follower(log_file, progress)
        _wait(running, progress)
    finally:
        processes.stop(list(running))


def _wait(
    running: dict["subprocess.Popen[bytes]", Follower], progress: Progress
) -> None:
    begun = time.monotonic()
    waiting = dict(running)
    while waiting:
        time.sleep(0.2)
        for job, follower in list(waiting.items()):
            code = processes.status_of(job)
            follower.read()
            if code is not None:
                del waiting[job]
                if code != 0:
                    raise failed(progress.what, follower.path, _ending(code))
        if time.monotonic() - progress.last >= 6 * EVERY:
            seconds = time.monotonic() - begun
            progress.print(
                f"{len(waiting)} of {len(running)} jobs running, {seconds:.0f} s"
            )


def _ending(code: int) -> str:
    return f"exit status {code}" if code > 0 else f"ended by signal {-code}"


def train_model(
    module: str,
    arguments: Sequence[str],
    log_file: Path,
    what: str,
    ngpu: int,
    machines: Machines = ONE_MACHINE,
) -> None:
    """Train in this process, or with several GPUs in one process per GPU."""
    folder = log_file.parent
    if machines != ONE_MACHINE:
        command = training_command(machines, module, arguments, ngpu, folder)
        # On another machine srun's processes would not find this one.
        tied = bool(machines.hosts)
        try:
            _run_commands([(command, log_file)], what, tied)
        finally:
            for left in folder.glob(f"{INIT_PREFIX}*"):
                left.unlink(missing_ok=True)
    elif ngpu <= 1:
        call(module, arguments, log_file, what)
    else:
        command = [*arguments, "--multiprocessing_distributed", "true"]
        run_jobs(module, [(command, log_file)], what)


def write_run_script(folder: Path, arguments: Sequence[str], stage: int) -> None:
    """Write ``run.sh`` into ``folder``, which resumes from ``stage``."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "run.sh"
    script.write_text(
        f'./asr.sh {shlex.join(arguments)} --stage {stage} "$@"; exit $?\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
