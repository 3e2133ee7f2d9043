"""Steps of tools/gpu_check.sh: limits of time; none keeps the others from running."""

import argparse
import os
import shlex
import time
from pathlib import Path

import pytest
import yaml
from gpu_check import run, steps
from gpu_check.steps import Runner, Step, fair_limit
from gpu_check.training import Training

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(steps, "_LEAST", 0.05)
    monkeypatch.setattr(steps, "_GRACE", 0.5)


def shell(name, script, limit=20.0, **more):
    return Step(name, ["bash", "-c", script], limit, **more)


def runs(pid):
    """Whether a process runs; one that ended and has not been waited for does not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except FileNotFoundError:
        return False


def has_ended(pid):
    """Whether a process ends within ten seconds."""
    for _ in range(200):
        if not runs(pid):
            return True
        time.sleep(0.05)
    return False


def late_step(runner, name, script, monkeypatch):
    """Run a step for half a second, and longer until it has written something."""
    monkeypatch.setattr(steps, "_GRACE", 5)
    step = shell(name, script, limit=0.5)
    step.may_stop = lambda: runner.log_of(name).stat().st_size > 0
    return runner.run(step)


def test_what_a_step_leaves_running_is_stopped_with_it(tmp_path, monkeypatch):
    runner = Runner(30, tmp_path)
    passed = runner.run(shell("a", "sleep 60 & echo $!"))
    late = late_step(runner, "b", "sleep 60 & echo $!; wait", monkeypatch)
    assert (passed.outcome, late.outcome) == ("passed", "overran")
    for name in "ab":
        assert has_ended(int((tmp_path / f"{name}.log").read_text()))


def test_a_step_that_ignores_the_request_to_stop_is_killed(tmp_path, monkeypatch):
    started = time.monotonic()
    script = "trap '' TERM; echo here; while :; do sleep 0.1; done"
    found = late_step(Runner(30, tmp_path), "deaf", script, monkeypatch)
    assert found.outcome == "overran" and "here" in found.message
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("together", [False, True])
def test_failures_keep_no_other_step_from_running(tmp_path, together):
    runner = Runner(30, tmp_path)
    all_steps = [
        shell("wrong", "echo the reason; exit 3"),
        Step("absent", ["/there/is/no/such/program"], 5),
        shell("slow", "sleep 60", limit=0.3),
        shell("good", "true"),
    ]
    if together:
        found = runner.together(all_steps)
    else:
        found = [runner.run(step) for step in all_steps]
    assert [f.outcome for f in found] == ["failed", "failed", "overran", "passed"]
    assert "exit status 3: the reason" in found[0].message
    assert "no/such/program" in found[1].message
    assert [f.good for f in found] == [False, False, False, True]


def test_the_total_limit_cuts_a_step_and_leaves_out_the_next(tmp_path):
    runner = Runner(1.0, tmp_path)
    first = runner.run(shell("first", "sleep 60", limit=50))
    second = runner.run(shell("second", "touch made", cwd=tmp_path))
    assert first.outcome == "overran" and first.seconds < 30
    assert second.outcome == "not run" and not (tmp_path / "made").exists()


def test_a_training_is_stopped_once_its_checkpoint_is_complete(tmp_path):
    started = time.monotonic()
    step = shell("t", "sleep 60", limit=0.2, stops_at_limit=True)
    step.may_stop = lambda: time.monotonic() - started > 0.5
    found = Runner(30, tmp_path).run(step)
    assert found.outcome == "stopped" and found.good and found.seconds >= 0.5
    step.may_stop = lambda: False  # waiting for it has a limit, too
    assert Runner(30, tmp_path).run(step).seconds < 30


def test_a_step_gets_its_environment_and_no_input(tmp_path):
    found = Runner(30, tmp_path).run(
        shell("env", 'read -r line || echo "$A"', environment={**os.environ, "A": "x"})
    )
    assert found.good and (tmp_path / "env.log").read_text() == "x\n"


@pytest.mark.parametrize("limits", [list(run.LIMITS.values()), [500.0] * 5, [1.0] * 3])
def test_steps_that_all_hang_leave_each_other_time(limits):
    """Each takes all it may; none is left without, and the total is kept."""
    total = left = 525.0
    for number, own in enumerate(limits):
        taken = fair_limit(own, left, sum(limits[number + 1 :]))
        assert taken == own or taken > total / 50
        left -= taken
    assert left >= 0


def test_every_benchmark_is_there_and_has_limit_and_small_sizes():
    folder = Path(__file__).parents[2] / "benchmarks"
    assert run.BENCHMARKS.keys() == run.QUICK.keys() <= run.LIMITS.keys()
    for name in run.BENCHMARKS:
        text = (folder / f"{name}.py").read_text()
        for word in {*run.BENCHMARKS[name], *run.QUICK[name]}:
            assert not word.startswith("--") or f'"{word}"' in text, (name, word)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_students_start_from_each_other(tmp_path, device):
    """The transducer loads the encoder that the first command makes."""
    args = argparse.Namespace(device=device, quick=True, training="")
    found = Training(tmp_path, args, "python3", 2).students()
    assert found[:2] == ["bash", "-c"]
    first, second = found[2].split(" && ")
    assert "gpu_check/pretrain.yaml" in first and "--asr_tag pretrain" in first
    assert "gpu_check/transducer.yaml" in second
    assert "exp/asr_pretrain/valid.loss.ave.pth:encoder:encoder" in second
    for command in (first, second):
        assert f"--use_amp {str(device == 'cuda').lower()}" in command
        words = shlex.split(command)
        assert words[words.index("--ngpu") + 1] == ("1" if device == "cuda" else "0")


def test_the_encoders_of_the_students_are_equal():
    """Else the parameters would not load."""
    folder = Path(__file__).parents[2] / "tools/gpu_check"
    one, other = (
        yaml.safe_load((folder / f"{name}.yaml").read_text())
        for name in ("pretrain", "transducer")
    )
    for key in ("frontend_conf", "normalize", "encoder", "encoder_conf"):
        assert one[key] == other[key]
