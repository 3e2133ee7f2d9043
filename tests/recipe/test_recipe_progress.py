"""The terminal shows how far a command in other processes is."""

from pathlib import Path

import pytest

from espnet_cif_hkd.recipe import commands, progress

# What the first of two ranks of ESPnet logs.
JOB = """
import time
HEAD = "[host:0/2] 2026-01-01 10:00:00,000 (%s:1) INFO: "
for module, message in (
    ("abs_task", "Model structure"),
    ("trainer", "1/2epoch started"),
    ("trainer", "1epoch:train:1-10batch: iter_time=0.1, loss=3.0"),
    ("trainer", "1epoch results: [train] loss=3.0, [valid] loss=2.0"),
):
    print(HEAD % module + message[:20], end="", flush=True)
    time.sleep(0.3)
    print(message[20:], flush=True)
"""


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "log", lines.append)
    monkeypatch.chdir(tmp_path)
    return lines


@pytest.mark.slow
def test_a_training_with_two_gpus_shows_batches_and_epochs(
    tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(progress, "EVERY", 0.0)
    commands.train_model("job", [], Path("train.log"), "stage 11", 2)
    assert shown == [
        "stage 11: 1/2epoch started",
        "stage 11: 1epoch:train:1-10batch: iter_time=0.1, loss=3.0",
        "stage 11: 1epoch results: [train] loss=3.0, [valid] loss=2.0",
    ]


def test_epochs_are_shown_at_once_and_other_lines_every_ten_seconds(
    shown: list[str],
) -> None:
    one = progress.Progress("stage 7")
    for number in range(1, 4):
        one.line("trainer", "INFO", f"{number}epoch:train: 1-10batch")
        one.line("trainer", "ERROR", "epoch results")
        one.line("trainer", "INFO", f"{number}epoch results: [train] " + "x" * 400)
    assert [line.split()[2] for line in shown] == ["1epoch", "2epoch", "3epoch"]
    assert all(line.endswith("x" * 400) for line in shown)


def test_utterances_of_all_jobs_are_counted(
    shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    one = progress.Progress("stage 12")
    followers = []
    for number in (1, 2):
        path = Path(f"{number}.log")
        path.write_text("2026 (asr_inference:5) INFO: speech length: 16000\n" * 2)
        followers.append(progress.Follower(path, one))
    for follower in followers * 2:
        follower.read()
    assert shown[-1] == "stage 12: utterance 4" and len(shown) == 4


@pytest.mark.slow
def test_a_silent_job_gets_a_line_a_minute(
    tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.py").write_text("import time\ntime.sleep(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(commands, "EVERY", 0.1)
    commands.run_jobs("job", [([], Path("job.log"))], "stage 12")
    assert shown and shown[0].startswith("stage 12: 1 of 1 jobs running, ")
