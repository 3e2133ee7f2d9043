"""A signal ends the engine with all that it has started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_recipe
from child_signals import default_signals

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ENGINE = [sys.executable, "-m", "espnet_cif_hkd.recipe"]
# local/data.sh with a child, as all recipes have one.
DATA_SH = "echo $$ > pids\nsleep 600 &\necho $! >> pids\nwait\n"
JOBS = """
import sys
from pathlib import Path
from espnet_cif_hkd.io.processes import Stopped, signals_stop
from espnet_cif_hkd.recipe.commands import run_jobs
try:
    with signals_stop():
        run_jobs("job", [([str(n)], Path(f"{n}.log")) for n in (1, 2)], "stage 12")
except Stopped as signal:
    sys.exit(128 + signal.number)
"""
JOB = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
with open("pids", "a") as stream:
    stream.write(f"{os.getpid()}\\n{child.pid}\\n")
child.wait()
"""


def started(count: int) -> list[int]:
    for _ in range(6000):
        words = Path("pids").read_text().split() if Path("pids").exists() else []
        if len(words) == count:
            return [int(word) for word in words]
        time.sleep(0.05)
    raise AssertionError("the jobs did not start")


def runs(pid: int) -> bool:
    """Whether a process runs 10 seconds from now, and is no zombie."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_data_preparation_ends_with_the_engine(folder: Path, number: int) -> None:
    Path("local").mkdir()
    Path("local/data.sh").write_text(DATA_SH)
    command = [*ENGINE, *tiny_recipe.options(stop_stage="1")]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals
    ) as engine:
        pids = started(2)
        engine.send_signal(number)
        _, printed = engine.communicate(timeout=300)
    assert engine.returncode == 128 + number
    name = signal.Signals(number).name
    stopped = f"error: stopped by {name}: run the same command again to continue\n"
    assert printed == stopped
    assert not any(map(runs, pids))
    assert Path("data/.incomplete-1").exists()


def test_jobs_end_with_the_engine(folder: Path) -> None:
    (folder / "job.py").write_text(JOB)
    with subprocess.Popen(
        [sys.executable, "-c", JOBS], preexec_fn=default_signals
    ) as engine:
        pids = started(4)
        engine.terminate()
        assert engine.wait(60) == 143
    assert not any(map(runs, pids))


def test_a_job_that_fails_ends_the_others(folder: Path) -> None:
    (folder / "job.py").write_text(
        "import sys, time\nif sys.argv[1] == '2':\n    while True:\n"
        "        time.sleep(0.1)\n"
        "        try:\n            written = open('pids').read()\n"
        "        except OSError:\n            continue\n"
        "        if written.count('\\n') == 2:\n            sys.exit(5)\n" + JOB
    )
    with subprocess.Popen(
        [sys.executable, "-c", JOBS], stderr=subprocess.PIPE, text=True
    ) as engine:
        pids = started(2)
        _, printed = engine.communicate(timeout=300)
    assert engine.returncode == 1
    assert "stage 12 failed (exit status 5): the log is 2.log" in printed
    assert not any(map(runs, pids))
