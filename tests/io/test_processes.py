"""Children end with their parent, whatever ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from child_signals import default_signals

from espnet_cif_hkd.io import processes

# A shell with a child of its own, as a data preparation with its Python is one.
TREE = ["bash", "-c", 'sleep 600 & echo $! > "$0"; echo $$ >> "$0"; wait']
STUBBORN = ["bash", "-c", 'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.1; done']


def numbers(path: Path, count: int) -> list[int]:
    """Process numbers, as soon as a child has written them."""
    for _ in range(2400):
        if path.exists() and len(path.read_text().split()) == count:
            return [int(word) for word in path.read_text().split()]
        time.sleep(0.05)
    raise AssertionError(f"no {count} numbers in {path}")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits as a zombie for its parent to notice."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_stop_ends_the_children_of_children(tmp_path: Path) -> None:
    process = processes.start([*TREE, str(tmp_path / "pids")])
    pids = numbers(tmp_path / "pids", 2)
    processes.stop([process])
    assert process.returncode == -signal.SIGTERM
    assert all(map(has_ended, pids))
    processes.stop([process])  # nothing is left to end


def test_who_does_not_end_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    process = processes.start([*STUBBORN, str(tmp_path / "pids")])
    numbers(tmp_path / "pids", 1)
    started = time.monotonic()
    processes.stop([process], grace=0.5)
    assert process.returncode == -signal.SIGKILL
    assert 0.5 <= time.monotonic() - started < 60


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$"])
def test_children_of_a_command_that_fails_end_with_it(tmp_path: Path, end: str) -> None:
    script = f"sleep 600 & echo $! > {tmp_path / 'pids'}; {end}"
    status = processes.run(["bash", "-c", script])
    assert status == (3 if end == "exit 3" else -signal.SIGKILL)
    assert all(map(has_ended, numbers(tmp_path / "pids", 1)))


def test_the_status_is_known_before_the_children_are_stopped(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path / 'pids'}; exit 4"
    process = processes.start(["bash", "-c", script])
    pids = numbers(tmp_path / "pids", 1)
    assert processes.status_of(process, block=True) == 4
    assert processes.status_of(process) == 4
    assert not any(map(has_ended, pids))
    processes.stop([process])
    assert process.returncode == 4 and all(map(has_ended, pids))
    waiting = processes.start(["sleep", "600"])
    assert processes.status_of(waiting) is None
    processes.stop([waiting])
    assert processes.status_of(waiting) == -signal.SIGTERM


RUN = """
import sys
from espnet_cif_hkd.io import processes
try:
    with processes.signals_stop():
        print(processes.run(sys.argv[1:]), flush=True)
except processes.Stopped as signal:
    print(signal, flush=True)
    sys.exit(128 + signal.number)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_command_that_runs(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", RUN, *TREE, str(tmp_path / "pids")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=default_signals
    ) as runner:
        pids = numbers(tmp_path / "pids", 2)
        runner.send_signal(number)
        out, _ = runner.communicate(timeout=120)
    assert runner.returncode == 128 + number
    assert out == f"{signal.Signals(number).name}\n"
    assert all(map(has_ended, pids))


def test_a_signal_at_the_start_of_a_process_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the process that had just started was stopped by nobody."""
    started = []
    start = processes.start

    def slow_start(*args: Any, **kwargs: Any) -> "subprocess.Popen[bytes]":
        started.append(start(*args, **kwargs))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # the handler runs here
        return started[-1]

    monkeypatch.setattr(processes, "start", slow_start)
    with pytest.raises(processes.Stopped, match="SIGTERM"), processes.signals_stop():
        processes.run(["sleep", "600"])
    assert started[0].poll() == -signal.SIGTERM


@pytest.mark.slow
def test_nohup_is_respected(tmp_path: Path) -> None:
    script = "echo $$ > $0; sleep 1; exit 3"
    command = ["nohup", sys.executable, "-c", RUN, "bash", "-c", script]
    with subprocess.Popen(
        [*command, str(tmp_path / "pids")], stdout=subprocess.PIPE, text=True
    ) as runner:
        numbers(tmp_path / "pids", 1)
        runner.send_signal(signal.SIGHUP)
        out, _ = runner.communicate(timeout=120)
    assert (runner.returncode, out) == (0, "3\n")


TIED = """
import sys
from espnet_cif_hkd.io import processes
launcher = [sys.executable, "-m", "espnet_cif_hkd"]
processes.start([*launcher, *sys.argv[1:]], tied=True).wait()
"""
SPAWNING = """
import multiprocessing, os, sys, time

def sleep(path):
    with open(path, "a") as stream:
        stream.write(f"{os.getpid()}\\n")
    time.sleep(600)

if __name__ == "__main__":
    with open(sys.argv[1], "a") as stream:
        stream.write(f"{os.getpid()}\\n")
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=sleep, args=(sys.argv[1],))
    child.start()
    child.join()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is of Linux")
def test_jobs_notice_that_the_engine_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SPAWNING)
    command = [sys.executable, "-c", TIED, str(script), str(tmp_path / "pids")]
    with subprocess.Popen(command) as engine:
        pids = numbers(tmp_path / "pids", 2)
        engine.kill()
    assert all(map(has_ended, pids))


def test_only_tied_children_know_their_parent(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(processes.PARENT_VARIABLE, "1")
    show = ["bash", "-c", f"echo -${processes.PARENT_VARIABLE}"]
    assert processes.run(show) == 0
    assert processes.start(show, tied=True).wait() == 0
    assert capfd.readouterr().out == f"-\n-{os.getpid()}\n"


def test_a_process_ends_when_nobody_reads_its_output() -> None:
    code = (
        "import time; from espnet_cif_hkd.io.processes import end_with_output; "
        "end_with_output(); print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert child.poll() is None
        child.stdout.close()
        assert child.wait(timeout=30) == -signal.SIGTERM


def test_a_log_file_ends_no_process(tmp_path: Path) -> None:
    code = (
        "import time; from espnet_cif_hkd.io.processes import end_with_output; "
        "end_with_output(); time.sleep(0.5); print('done')"
    )
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=log, stderr=log, check=False
        )
    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == "done\n"
