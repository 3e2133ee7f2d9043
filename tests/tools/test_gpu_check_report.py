"""What a run of tools/gpu_check.sh reports."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
from gpu_check import run, training
from gpu_check.report import Report
from gpu_check.steps import Result

TOOLS = Path(__file__).parents[2] / "tools"

TESTS = """
import time
import pytest

def test_good(): pass

def test_bad(): assert 1 + 1 == 3, "the | reason"

def test_left_out(): pytest.skip("no GPU")

@pytest.fixture
def broken(): raise RuntimeError("broken fixture")

def test_broken(broken): pass

def test_endless():
    print("begun", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def outcomes(tmp_path):
    """Outcomes of a pytest that is killed in a test."""
    (tmp_path / "test_some.py").write_text(TESTS)
    file = tmp_path / "outcomes.jsonl"
    environment = {**os.environ, "GPU_CHECK_OUTCOMES": str(file)}
    environment["PYTHONPATH"] = str(TOOLS / "gpu_check")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "outcomes", "test_some.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 300
        while time.monotonic() < end and "endless" not in (
            file.read_text() if file.is_file() else ""
        ):
            time.sleep(0.1)
        process.kill()
    return file


@pytest.mark.slow
def test_outcomes_of_a_killed_pytest_are_kept(outcomes):
    with outcomes.open("a") as stream:
        stream.write('{"name": "cut o')
    report = Report({})
    report.read_tests(outcomes)
    found = {t["name"].split("::")[1]: t for t in report.tests}
    assert {name: test["outcome"] for name, test in found.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_left_out": "skipped",
        "test_broken": "error",
        "test_endless": "running",
    }
    assert "the | reason" in found["test_bad"]["message"]
    assert found["test_left_out"]["message"].endswith("no GPU")
    assert "broken fixture" in found["test_broken"]["message"]


@pytest.mark.slow
def test_a_collection_that_fails_is_a_failed_test(tmp_path):
    (tmp_path / "test_wrong.py").write_text("import there_is_no_such_module\n")
    environment = {**os.environ, "GPU_CHECK_OUTCOMES": str(tmp_path / "outcomes")}
    environment["PYTHONPATH"] = str(TOOLS / "gpu_check")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "outcomes"],
        cwd=tmp_path,
        env=environment,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    report = Report({})
    report.read_tests(tmp_path / "outcomes")
    assert [test["outcome"] for test in report.tests] == ["error"]
    assert not report.good


def passed(name="t"):
    return {"name": name, "outcome": "passed", "seconds": 1.0, "message": ""}


@pytest.mark.parametrize(
    ("outcomes", "steps", "good"),
    [
        (["passed"], ["passed", "stopped", "not run"], True),
        (["passed", "skipped"], ["passed"], True),
        (["skipped"], ["passed"], False),  # nothing was tested
        ([], ["passed"], False),
        (["passed", "failed"], ["passed"], False),
        (["passed", "running"], ["passed"], False),
        (["passed"], ["passed", "failed"], False),
        (["passed"], ["overran"], False),
    ],
)
def test_when_a_run_is_good(outcomes, steps, good):
    report = Report({})
    report.tests = [passed() | {"outcome": outcome} for outcome in outcomes]
    report.steps = [Result("s", outcome, 1.0, 2.0) for outcome in steps]
    seen = {*outcomes, *steps}
    assert report.good is good
    report.wants_tests = False  # run --steps training
    assert report.good is (good or not {"failed", "overran", "running"} & seen)


def test_json_and_table_hold_everything(tmp_path):
    report = Report({"commit": "abc", "card": {"gpu": "H100"}})
    report.steps = [Result("decoding", "overran", 1.5, 1.0, "a | b")]
    report.tests = [passed("tests/gpu/x.py::test_x")]
    (tmp_path / "f.json").write_text('[{"name": "n", "value": 0.01234, "unit": "ms"}]')
    report.read_figures("decoding", tmp_path / "f.json")
    report.read_figures("contrastive", tmp_path / "never_written.json")
    report.training = {"epochs": 2}
    report.write(tmp_path / "out", 12.34)
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["passed"] is False and found["wall_seconds"] == 12.3
    assert found["commit"] == "abc" and found["card"] == {"gpu": "H100"}
    assert found["steps"][0]["message"] == "a | b"
    assert found["tests"][0]["name"] == "tests/gpu/x.py::test_x"
    row = {"benchmark": "decoding", "name": "n", "value": 0.01234, "unit": "ms"}
    assert found["figures"] == [row] and found["training"] == {"epochs": 2}
    table = (tmp_path / "out/results.md").read_text()
    for line in (
        "| card gpu | H100 |",
        "| decoding | overran | 1.5 | 1 | a \\| b |",
        "| decoding | n | 0.01234 | ms |",
        "| epochs | 2 |",
    ):
        assert line in table.splitlines()


@pytest.mark.parametrize("when", ["fails", "is interrupted"])
def test_a_run_that_breaks_still_reports(tmp_path, monkeypatch, when):
    def breaks(self):
        self.report.steps.append(Result("install", "failed", 1.0, 2.0))
        self.report.tests.append(passed())
        if when == "fails":
            raise ZeroDivisionError
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    bundle = tmp_path / "gpu_bundle"
    bundle.mkdir()
    here = ".".join(map(str, sys.version_info[:2]))
    manifest = {"python": here, "commit": "abc"}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(run.Check, "run", breaks)
    saved = signal.getsignal(signal.SIGTERM)
    args = Namespace(
        bundle=None,
        limit=60.0,
        device="cpu",
        out=tmp_path / "out",
        work=None,
        steps=run.PARTS,
        training="",
        quick=True,
    )
    try:
        if when == "fails":
            with pytest.raises(ZeroDivisionError):
                run.main(args, bundle / "repo")
        else:
            assert run.main(args, bundle / "repo") == 1
    finally:
        signal.signal(signal.SIGTERM, saved)
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["steps"][0]["outcome"] == "failed" and found["commit"] == "abc"
    assert found["device"] == "cpu, standing in for a GPU"
    assert (tmp_path / "out/logs.tar.gz").is_file()


LOG = """\
[host] 2026 (trainer:1) INFO: 1epoch results: [train] iter_time=0.1, loss=9.5, \
time=12.5 seconds, total_count=5, gpu_max_cached_mem_GB=1.2, [valid] loss=8.1, \
acc=0.25, time=1 minute and 2.5 seconds, [att_plot] time=1 second
[host] 2026 (trainer:1) INFO: 2epoch results: [train] iter_time=0.1, loss=7.5, \
time=11.5 seconds, total_count=10, gpu_max_cached_mem_GB=1.5, [valid] loss=6.1, \
acc=0.5, time=1 minute and 2.5 seconds, [att_plot] time=1 second
"""


def test_a_training_log_is_summed_up():
    assert training.read_log("no epoch yet") == {"epochs": 0}
    found = training.read_log(LOG)
    assert found["epochs"] == 2
    assert found["last_epoch"] == {
        "train_loss": "7.5",
        "train_time": "11.5 seconds",
        "train_total_count": "10",
        "train_gpu_max_cached_mem_GB": "1.5",
        "valid_loss": "6.1",
        "valid_acc": "0.5",
        "valid_time": "1 minute and 2.5 seconds",
    }


def test_parts_of_a_checkpoint_join(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_PART", 5000)
    content = os.urandom(12_345)
    (tmp_path / "some.pth").write_bytes(content)
    members = {"checkpoint.pth": tmp_path / "some.pth", "none": tmp_path / "none"}
    names = training.split_tar(members, tmp_path, "asr_x")
    assert len(names) > 2
    joined = b"".join((tmp_path / name).read_bytes() for name in sorted(names))
    with tarfile.open(fileobj=io.BytesIO(joined)) as tar:
        member = tar.extractfile("asr_x/checkpoint.pth")
        assert member is not None and member.read() == content


def archive(content=b"x" * 100):
    """What torch.save writes is a zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("data", content)
    return stream.getvalue()


PREVIOUS = training.PREVIOUS
NEW, OLD = archive(b"new" * 50), archive(b"old" * 50)
WRITTEN = {
    "complete": ({"checkpoint.pth": NEW}, NEW),
    "being written": ({"checkpoint.pth": NEW[:60], PREVIOUS: OLD}, OLD),
    "about to be written": ({PREVIOUS: OLD}, OLD),
    "just written": ({"checkpoint.pth": NEW, PREVIOUS: OLD}, NEW),
    "first one incomplete": ({"checkpoint.pth": NEW[:60]}, None),
    "none": ({}, None),
}


@pytest.mark.parametrize("state", WRITTEN)
def test_a_stop_at_any_moment_brings_a_readable_checkpoint(tmp_path, state):
    files, expected = WRITTEN[state]
    args = Namespace(device="cpu", quick=True, training="")
    recipe = training.Training(tmp_path / "bundle", args, "python3", 2)
    folder = recipe.folder_of("training") / "exp/asr_long"
    folder.mkdir(parents=True)
    for name, content in {"train.log": LOG.encode(), **files}.items():
        (folder / name).write_bytes(content)
    # As a file system whose clock is behind has it.
    os.utime(folder / "train.log", (recipe.begun + 0.09,) * 2)
    assert recipe.checkpoint_is_complete() is (PREVIOUS in files or not files)
    found = recipe.collect(tmp_path)
    joined = b"".join((tmp_path / name).read_bytes() for name in found["kept"])
    with tarfile.open(fileobj=io.BytesIO(joined)) as tar:
        names = {Path(name).name: name for name in tar.getnames()}
        assert ("checkpoint.pth" in names) is (expected is not None)
        if expected is not None:
            member = tar.extractfile(names["checkpoint.pth"])
            assert member is not None and member.read() == expected
    outcome = None if not files else "DAMAGED" if expected is None else "complete"
    assert found.get("checkpoint") == outcome
