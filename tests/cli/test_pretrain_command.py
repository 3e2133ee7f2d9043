"""``cli.pretrain`` resumes a training only on its own data and options."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

from espnet_cif_hkd.cli.pretrain import main
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.models.pretrain_task import PretrainTask

TEACHER = {"type": "frames", "teachers": {"base": {"teacher": "a"}}}
CONFIG: dict[str, Any] = {
    "encoder": "cif_conformer",
    "encoder_conf": {"num_blocks": 2, "pooling_layers": []},
    "model_conf": {"criteria": {"speech": TEACHER}},
}
WORDS = ("--config", "conf.yaml", "--output_dir", "exp")


@pytest.fixture(autouse=True)
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[argparse.Namespace]:
    """The arguments of each training, which leaves what ESPnet leaves."""
    monkeypatch.chdir(tmp_path)
    found = []

    def train(args: argparse.Namespace) -> None:
        found.append(args)
        Path("exp/config.yaml").write_text(yaml_no_alias_safe_dump(vars(args)))
        Path("exp/1epoch.pth").touch()

    monkeypatch.setattr(PretrainTask, "main", train)
    Path("conf.yaml").write_text(yaml.safe_dump(CONFIG))
    for name in ("wav.scp", "shape"):
        Path(name).write_text("u1 1000\n")
    return found


def run(*words: str, resume: str = "true", shape: str = "shape") -> int:
    return main(
        [
            *(*WORDS, "--resume", resume),
            *("--train_data_path_and_name_and_type", "wav.scp,speech,sound"),
            *(("--train_shape_file", shape) if shape else ()),
            *words,
        ]
    )


def test_the_same_training_continues(trained: list[argparse.Namespace]) -> None:
    assert [run(), run("--max_epoch", "9")] == [0, 0]
    assert [one.max_epoch for one in trained][1:] == [9]
    Path("wav.scp").write_text("u1 moved.flac\n")  # the same names and lengths
    assert run() == 0


def refused(capsys: pytest.CaptureFixture[str], *words: str, **changed: str) -> str:
    capsys.readouterr()
    assert run(*words, **changed) == 1
    found = capsys.readouterr().err
    assert found.startswith("error: ") and found.count("\n") == 1
    assert "train under another --output_dir (--pretrain_tag of run.sh), or r" in found
    return found


@pytest.mark.parametrize("shape", ["shape", ""])
def test_other_data_are_refused(
    capsys: pytest.CaptureFixture[str], trained: list[argparse.Namespace], shape: str
) -> None:
    assert run(shape=shape) == 0
    for _ in range(2):
        with Path(shape or "wav.scp").open("a") as table:
            table.write("u2 1000\n")
        assert "training data have changed" in refused(capsys, shape=shape)
    assert len(trained) == 1
    assert run(shape=shape, resume="false") == 0  # begins again
    assert run(shape=shape) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--model_conf criteria.speech.teachers.base.teacher=b",
            "model_conf.criteria.speech.teachers.base.teacher a, and this run has b",
        ),
        (
            "--encoder_conf num_blocks=3",
            "encoder_conf.num_blocks 2, and this run has 3",
        ),
    ],
)
def test_other_options_are_refused(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert run() == 0
    assert message in refused(capsys, *words.split())


def test_an_interrupted_training_has_its_data_recorded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = PretrainTask.main

    def interrupted(args: argparse.Namespace) -> None:
        train(args)
        raise UserError("no space")

    monkeypatch.setattr(PretrainTask, "main", interrupted)
    assert run() == 1
    monkeypatch.setattr(PretrainTask, "main", train)
    Path("shape").write_text("u2 1000\n")
    assert "training data have changed" in refused(capsys)
    Path("shape").write_text("u1 1000\n")
    assert run() == 0


def test_a_trial_run_writes_nothing(trained: list[argparse.Namespace]) -> None:
    Path("exp").mkdir()
    for option in ("dry_run", "collect_stats"):
        assert run(f"--{option}", "true") == 0
    assert not list(Path("exp").glob(".*"))
