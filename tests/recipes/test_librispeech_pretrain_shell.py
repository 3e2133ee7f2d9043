"""What run.sh of LibriSpeech calls for transducers and pre-training, in which order."""

from pathlib import Path

import librispeech_fixture as fixture
import pytest
from recorded_recipe import RecordedRecipe, in_other_folders

from espnet_cif_hkd.recipe.paths import derive

PRETRAINING = {"transducer": "pretrain", "transducer_streaming": "pretrain_streaming"}
SYSTEMS = tuple(PRETRAINING)


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    return RecordedRecipe("librispeech", tmp_path / "recipe")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_transducer_alone(recipe: RecordedRecipe, system: str) -> None:
    done = recipe.run("--system", system)
    assert done.returncode == 0, done.stderr
    (only,) = recipe.trainings()
    assert not recipe.python()
    assert only.asr_config == f"conf/train_asr_{system}_100.yaml"
    assert only.inference_config == "conf/decode_asr_transducer.yaml"
    for config in (only.asr_config, only.inference_config):
        assert (fixture.RECIPE / config).is_file()
    assert (only.train_set, only.dumpdir, only.nbpe) == (
        "train_clean_100",
        "dump/100h",
        500,
    )
    assert only.asr_args == "" and not only.pretrained_model
    normalize = "global_mvn" if system.endswith("streaming") else "utterance_mvn"
    assert only.feats_normalize == normalize


@pytest.mark.parametrize("system", SYSTEMS)
def test_pretraining_comes_first(recipe: RecordedRecipe, system: str) -> None:
    done = recipe.run(
        *("--system", system, "--pretrain", "true"), *("--pretrain_args", "--seed 3")
    )
    assert done.returncode == 0, done.stderr
    assert [call[0] for call in recipe.calls()] == ["python", "asr.sh", "asr.sh"]
    (converted,) = recipe.python()
    assert converted[:2] == ["local/speech_teacher.py", "microsoft/wavlm-large"]
    first, second = recipe.trainings()
    name = PRETRAINING[system]
    assert (first.stage, first.stop_stage) == (1, 11)
    assert first.asr_config == f"conf/{name}_100.yaml"
    assert (first.asr_tag, first.asr_args) == (name, "--seed 3")
    assert (second.stage, second.asr_tag) == (10, f"{system}_{name}")
    best = f"exp/100h/asr_{name}/valid.loss.ave.pth"
    assert second.pretrained_model == f"{best}:encoder:encoder"
    assert first.feats_normalize == second.feats_normalize
    assert "--hours 100 " in first.local_data_opts


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.mark.parametrize("ngpu", ["4", "1"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_unlabelled_speech(recipe: RecordedRecipe, system: str, ngpu: str) -> None:
    done = recipe.run(
        *("--system", system, "--pretrain", "true", "--unlabelled", "true"),
        *("--ngpu", ngpu, "--pretrain_args", "--max_epoch 3"),
    )
    assert done.returncode == 0, done.stderr
    kinds = [call[0] for call in recipe.calls()]
    assert kinds == ["python", "asr.sh", *["python"] * 3, "asr.sh"]
    first, second = recipe.trainings()
    assert (first.stage, first.stop_stage, second.stage) == (1, 10, 10)
    # Stage 1 prepares all parts; the recogniser still learns from 100 hours.
    assert "--hours 960 " in first.local_data_opts
    assert second.train_set == "train_clean_100"
    tag = f"{PRETRAINING[system]}_unlabelled"
    assert first.asr_tag == tag and f"/asr_{tag}/" in second.pretrained_model
    _, joined, stored, trained = recipe.python()
    target = option(joined, "--target")
    start = joined.index("--data_dir") + 1
    assert joined[start:] == [
        "dump/100h/raw/train_clean_100",
        *("data/train_clean_360", "data/train_other_500"),
    ]
    assert stored[:2] == ["-m", "espnet_cif_hkd.cli.dump_speech_teacher"]
    assert option(stored, "--asr_config") == first.asr_config
    assert stored[-2:] == [target, "dump/100h/raw/dev"]
    assert trained[:2] == ["-m", "espnet_cif_hkd.cli.pretrain"]
    assert option(trained, "--config") == first.asr_config
    assert trained[-4:] == ["--max_epoch", "12", "--max_epoch", "3"]
    assert ("--multiprocessing_distributed" in trained) == (ngpu == "4")
    path = option(trained, "--train_data_path_and_name_and_type")
    assert path == f"{target}/wav.scp,speech,sound"
    if system.endswith("streaming"):
        stats = derive(second).asr_stats_dir
        assert option(trained, "--normalize_conf") == (
            f"stats_file={stats}/train/feats_stats.npz"
        )
    else:
        assert "--normalize" not in trained


def test_other_folders_are_those_of_both_trainings(recipe: RecordedRecipe) -> None:
    system = ("--system", "transducer_streaming")
    first, words = in_other_folders(recipe, *system, "--unlabelled", "true")
    name = derive(first).asr_exp
    stats = derive(first).asr_stats_dir
    assert f"stats_file={stats}/train/feats_stats.npz" in words
    assert {str(name), "my/dump/raw/train_clean_100"} < set(words)
    assert not [word for word in words if word.startswith(("dump/", "exp/"))]


def test_a_speech_model_is_no_input_of_stage_1(recipe: RecordedRecipe) -> None:
    assert recipe.run(script="local/data.sh").returncode == 0
    declared = (recipe.folder / "data/.inputs").read_text().splitlines()
    assert declared == ["$LIBRISPEECH", "downloads/LibriSpeech"]
    recipe.run("--system", "transducer", "--pretrain", "true")
    assert recipe.python()[0][-1] == "downloads/wavlm_large"


def test_stages_of_unlabelled_speech(recipe: RecordedRecipe) -> None:
    words = ["--system", "transducer", "--pretrain", "true", "--unlabelled", "true"]
    recipe.run(*words, "--stage", "11", "--stop_stage", "11")
    assert [one.stage for one in recipe.trainings()] == [11]
    assert len(recipe.python()) == 4
    recipe.run(*words, "--stop_stage", "10")
    assert [one.stop_stage for one in recipe.trainings()] == [10]
    assert len(recipe.python()) == 1
    recipe.run(*words, "--stage", "12")
    assert [one.stage for one in recipe.trainings()] == [12] and not recipe.python()
    recipe.run(*words, "--speed_perturb_factors", "0.9 1.0 1.1")
    assert "dump/100h/raw/train_clean_100_sp" in recipe.python()[1]


def test_a_failure_shows_the_end_of_the_log(recipe: RecordedRecipe) -> None:
    (recipe.folder / "python").write_text(
        '#!/bin/sh\ncase "$*" in *cli.pretrain*) echo "error: no speech"; exit 1;;'
        " esac\n"
    )
    words = ["--system", "transducer", "--pretrain", "true", "--unlabelled", "true"]
    done = recipe.run(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no speech"
    assert len(recipe.trainings()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--system", "transducer", "--hours", "960"],
            "--system transducer --hours 960: its configurations are for --hours 100",
        ),
        (
            ["--system", "transducer", "--units", "wordpiece"],
            "--system transducer --units wordpiece: use --units bpe",
        ),
        (["--pretrain", "maybe"], "--pretrain maybe: choose true or false"),
        (["--pretrain", "true"], "--pretrain true --system hkd: there are encoders"),
        (["--unlabelled", "true"], "--unlabelled true: only --pretrain true reads"),
        (["--unlabelled", "1"], "--unlabelled 1: choose true or false"),
    ],
)
def test_refused_at_once(
    recipe: RecordedRecipe, words: list[str], message: str
) -> None:
    done = recipe.run(*words)
    assert done.returncode == 2 and not recipe.calls()
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
