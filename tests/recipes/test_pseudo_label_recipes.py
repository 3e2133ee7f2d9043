"""--pseudo_labels of run.sh: a training set with text that a recogniser wrote."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from recorded_recipe import RecordedRecipe
from stock_cases import fotaq, run_stages

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import paths

WORDS = ("--pseudo_labels", "more other", "--labeller", "exp/asr_old")


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    made = RecordedRecipe("fotaq", tmp_path / "recipe")
    for name in ("more", "other", "exp/asr_old"):
        (made.folder / name).mkdir(parents=True)
    (made.folder / "exp/asr_old/config.yaml").touch()
    return made


def test_the_text_is_written_between_two_stages(recipe: RecordedRecipe) -> None:
    done = recipe.run("--system", "cif", *WORDS, "--pseudo_args", "--longest 9")
    assert done.returncode == 0, done.stderr
    data, training = recipe.trainings()
    assert (data.stage, data.stop_stage, data.train_set) == (1, 1, "train")
    assert (training.stage, training.train_set) == (2, "train_pseudo")
    # Neither the model nor the statistics are those of the set with transcripts.
    assert training.asr_tag == "cif_pseudo"
    stats = "exp/asr_stats_raw_en_char_pseudo"
    assert str(paths.derive(training).asr_stats_dir) == stats
    # The token list is that of the transcripts.
    assert training.bpe_train_text == training.lm_train_text == "data/train/text"
    assert recipe.calls()[1:-1] == [
        *(["python", *words] for words in recipe.python()),
    ]
    labels, joined = recipe.python()
    assert labels == [
        *("-m", "espnet_cif_hkd", "transcribe", "more", "other"),
        *("--model", "exp/asr_old", "-f", "json", "-o", "dump/pseudo/pseudo"),
        *("--beam", "5"),
    ]
    assert joined == [
        *("-m", "espnet_cif_hkd", "pseudo-labels", "more", "other"),
        *("--results", "dump/pseudo/pseudo", "--data_dir", "data/train"),
        *("-o", "data/train_pseudo", "--longest", "9"),
    ]


def test_names_and_stages_are_the_users(recipe: RecordedRecipe) -> None:
    done = recipe.run(
        *("--system", "whisper", "--subset", "7", "--stage", "2", *WORDS),
        *("--labeller_args", "--beam 3 --rescore_lm lm", "--pseudo_tag", "lm"),
        *("--asr_tag", "mine", "--dumpdir", "my/dump", "--expdir", "my/exp"),
    )
    assert done.returncode == 0, done.stderr
    (training,) = recipe.trainings()
    assert (training.stage, training.train_set) == (2, "train_7_lm")
    assert training.asr_tag == "mine"
    assert training.asr_stats_dir == "my/exp/asr_stats_whisper_lm"
    labels, joined = [words for words in recipe.python() if "-m" in words][:2]
    assert labels[-6:] == [
        "-o",
        "my/dump/pseudo/lm",
        "--beam",
        "3",
        "--rescore_lm",
        "lm",
    ]
    assert joined[-4:] == ["--data_dir", "data/train_7", "-o", "data/train_7_lm"]


def test_whisper_can_write_the_text(recipe: RecordedRecipe) -> None:
    (recipe.folder / "whisper").mkdir()
    (recipe.folder / "whisper/tokenizer.json").touch()
    done = recipe.run(
        *("--system", "cif", *WORDS[:3], "whisper"),
        *("--labeller_args", "--language en"),
    )
    assert done.returncode == 0, done.stderr
    labels, joined = recipe.python()
    assert labels == [
        *("-m", "espnet_cif_hkd.cli.whisper_text", "more", "other"),
        *("--model", "whisper", "-o", "dump/pseudo/pseudo/text", "--language", "en"),
    ]
    assert joined[5:7] == ["--text", "dump/pseudo/pseudo/text"]


def test_hsk_has_it_too(tmp_path: Path) -> None:
    recipe = RecordedRecipe("hsk", tmp_path / "recipe")
    (recipe.folder / "exp/asr_old").mkdir(parents=True)
    (recipe.folder / "exp/asr_old/config.yaml").touch()
    (recipe.folder / "rest.scp").touch()
    words = ("--pseudo_labels", "rest.scp", *WORDS[2:], "--subset", "7")
    done = recipe.run("--system", "cif", *words)
    assert done.returncode == 0, done.stderr
    data, training = recipe.trainings()
    assert (data.stop_stage, data.train_set) == (1, "train_7")
    assert (training.stage, training.train_set) == (2, "train_7_pseudo")
    assert training.lm_train_text == training.bpe_train_text == "data/train_7/text"
    assert training.asr_tag == "cif_pseudo"
    stats = paths.derive(data).asr_stats_dir
    assert training.asr_stats_dir == f"{stats}_pseudo"
    assert recipe.python()[0][3] == "rest.scp"
    # Other options are as before.
    recipe.run("--system", "cif", "--train_set", "mine", "--asr_tag", "tag")
    (only,) = recipe.trainings()
    assert (only.train_set, only.asr_tag, only.asr_stats_dir) == ("mine", "tag", "")
    assert only.lm_train_text == "data/train/text"


def test_librispeech_has_it_too(tmp_path: Path) -> None:
    recipe = RecordedRecipe("librispeech", tmp_path / "recipe")
    for name in ("more", "other", "exp/asr_old"):
        (recipe.folder / name).mkdir(parents=True)
    (recipe.folder / "exp/asr_old/config.yaml").touch()
    done = recipe.run("--system", "transducer", "--use_lm", "true", *WORDS)
    assert done.returncode == 0, done.stderr
    data, training = recipe.trainings()
    assert (data.stop_stage, data.train_set) == (1, "train_clean_100")
    assert training.train_set == "train_clean_100_pseudo"
    assert training.bpe_train_text == data.bpe_train_text
    assert training.lm_train_text == data.lm_train_text
    assert "pseudo" not in training.bpe_train_text + training.lm_train_text
    assert training.asr_tag == "transducer_pseudo"
    assert training.asr_stats_dir == f"{paths.derive(data).asr_stats_dir}_pseudo"


@pytest.mark.parametrize("first", ["3", "11", "12"])
def test_later_stages_use_the_set(recipe: RecordedRecipe, first: str) -> None:
    recipe.run("--system", "cif", *WORDS, "--stage", first)
    (training,) = recipe.trainings()
    assert training.train_set == "train_pseudo" and not recipe.python()
    assert training.stage == int(first)


def test_stage_1_alone_makes_the_transcribed_set(recipe: RecordedRecipe) -> None:
    recipe.run("--system", "cif", *WORDS, "--stop_stage", "1")
    (data,) = recipe.trainings()
    assert data.train_set == "train" and not recipe.python()


def test_both_trainings_of_a_pretraining_use_the_set(recipe: RecordedRecipe) -> None:
    done = recipe.run("--pretrain", "true", "--system", "cif", *WORDS)
    assert done.returncode == 0, done.stderr
    data, *trainings = recipe.trainings()
    assert data.train_set == "train" and len(trainings) == 2
    assert {one.train_set for one in trainings} == {"train_pseudo"}


@pytest.mark.parametrize("program", ["transcribe", "pseudo-labels"])
def test_a_failed_command_is_the_end(recipe: RecordedRecipe, program: str) -> None:
    (recipe.folder / "python").write_text(
        f'#!/bin/sh\ncase "$*" in *"{program} "*) echo "error: no" >&2; exit 1;; esac\n'
    )
    done = recipe.run("--system", "cif", *WORDS)
    assert done.returncode == 1 and len(recipe.trainings()) == 1
    assert done.stderr.splitlines()[-1] == "error: no"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pseudo_labels", "no"], "--pseudo_labels no: there is no such folder or"),
        (["--pseudo_labels", "more"], "--pseudo_labels needs --labeller, the folder"),
        ([*WORDS[:3], "exp/none"], "'exp/none' has neither config.yaml nor token"),
        (["--labeller", "exp/asr_old"], "only --pseudo_labels reads it"),
    ],
)
def test_refused_before_anything(
    recipe: RecordedRecipe, words: list[str], message: str
) -> None:
    done = recipe.run("--system", "cif", *words)
    assert done.returncode == 2 and message in done.stderr and not recipe.calls()


def write_letters(checkpoint: Path) -> None:
    """A model of two passes writes <unk>: exchange it and a letter in the output."""
    state = torch.load(checkpoint, weights_only=True)
    rows = state["decoder.output_layer.weight"]
    rows[[1, 3]] = rows[[3, 1]]
    torch.save(state, checkpoint)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "checkout",
    [False, pytest.param(True, marks=pytest.mark.espnet_checkout)],
    ids=["engine", "stock"],
)
def test_a_recogniser_labels_for_the_next_one(
    tmp_path: Path, forked_python: str, checkout: bool
) -> None:
    folder = tmp_path / "recipe"
    options = ["--system", "cif", *fotaq(folder)]
    python = os.environ.get("PYTHON", "python3") if checkout else forked_python
    run_stages(folder, options, checkout, 1, 11, python)
    (best,) = (folder / "exp/asr_tiny").glob("valid.*.ave.pth")
    write_letters(best)
    speech = folder / "speech"
    speech.mkdir()
    for n in range(3):
        wave = 0.2 * np.random.default_rng(n).standard_normal((2 + n) * 11025)
        soundfile.write(speech / f"{n}.flac", wave, 11025)
    more = ["--pseudo_labels", "speech", "--labeller", "exp/asr_tiny"]
    more += ["--labeller_args", "--greedy"]
    options[options.index("--asr_tag") + 1] = "student"
    run_stages(folder, [*options, *more], checkout, 2, 13, python)
    text = read_table(folder / "data/train_pseudo/text")
    new = {name for name in text if name.startswith("pseudo-")}
    assert set(read_table(folder / "data/train/text")) == set(text) - new
    assert new == {"pseudo-0", "pseudo-1", "pseudo-2"}
    dumped = read_table(folder / "dump/raw/train_pseudo/wav.scp")
    assert set(dumped) == set(text)
    config = yaml.safe_load((folder / "exp/asr_student/config.yaml").read_text())
    (speech_table, *_), _ = config["train_data_path_and_name_and_type"]
    assert speech_table == "dump/raw/train_pseudo/wav.scp"
    assert (folder / "exp/asr_student/decoded/test/text").is_file()
