"""The progress of ``make demo``: one line for a terminal, milestones for a file."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import demo_progress
import pytest

TOOL = Path(demo_progress.__file__)
EPOCH = (
    "2026-01-01T10:11:12 stage 11: 3epoch results: [train] cer_ctc=0.9, x=1, "
    "[valid] loss_ctc=3.1, cer_ctc=0.254, loss=2"
)
BATCH = (
    "2026-01-01T10:11:12 stage 11: 2epoch:train:11-20batch: iter_time=0.1, "
    "loss_att=1.7, loss=2.5, x=1"
)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[nltk_data] Error loading cmudict", None),
        ("2026-01-01T10:11:12 stage 10 (statistics)", ("10:11:12 stage 10", True)),
        (EPOCH, ("10:11:12 pass 3 finished: dev CER of CTC 25 %", True)),
        (BATCH, ("10:11:12 pass 2, batch 20: loss 2.5", False)),
        ("2026-01-01T10:11:12 stage 12: utterance 3", ("10:11:12 stage 12", False)),
    ],
    ids=["other programs", "stage", "epoch", "batches", "utterance"],
)
def test_a_line_of_the_log_becomes_a_short_one(line, shown):
    found = demo_progress.shorten(line)
    if shown is None:
        assert found is None
    else:
        assert found is not None
        assert found[0].startswith(shown[0])
        assert found[1] is shown[1]


def _run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), str(folder / "log"), sys.executable, "-c"]
    return subprocess.run([*command, code], capture_output=True, text=True, check=False)


def test_the_output_is_kept_and_milestones_are_printed(tmp_path):
    lines = f"{EPOCH}\n{BATCH}\nnoise\n"
    done = _run(tmp_path, f"print({lines!r}, end='')")
    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == lines
    first, second = done.stdout.splitlines()
    assert first == "10:11:12 pass 3 finished: dev CER of CTC 25 %"
    assert re.match(r"finished in \d+\.\d minutes", second)


def test_ctrl_c_waits_for_the_command(tmp_path):
    code = (
        "import time\n"
        "print('begun', flush=True)\n"
        "try:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.3)\n    print('cleaned up')\n"
    )
    log = tmp_path / "new/log"
    command = [sys.executable, str(TOOL), str(log), sys.executable, "-c", code]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not (log.exists() and log.read_text()):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        printed, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "" and "interrupted" in printed
    assert log.read_text() == "begun\ncleaned up\n"


def test_an_error_shows_the_end_of_the_output_and_its_status(tmp_path):
    code = "print(*range(30), sep='\\n'); raise SystemExit(3)"
    done = _run(tmp_path, code)
    assert done.returncode == 3
    assert "\n10\n11\n" in done.stdout
    assert "\n9\n" not in done.stdout
