"""LibriSpeech's recipe with Whisper's decoder: its calls, and a miniature of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bpe_whisper import build_bpe_whisper
from miniature.english import english
from miniature.librispeech import COUNTS, write_librispeech
from recorded_recipe import RecordedRecipe

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import layout

SYSTEM = ("--system", "whisper_decoder")
PIECES = "data/en_100_token_list/bpe_bpe8000"


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    made = RecordedRecipe("librispeech", tmp_path / "recipe")
    model = made.folder / "downloads/whisper/model.safetensors"
    model.parent.mkdir(parents=True)
    model.touch()
    return made


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        ([], [(1, 4), (6, 10000)]),
        (["--stop_stage", "5"], [(1, 4)]),
        (["--stage", "11", "--stop_stage", "11"], [(11, 11)]),
    ],
)
def test_the_stages(
    recipe: RecordedRecipe, arguments: list[str], stages: list[tuple[int, int]]
) -> None:
    sizes = recipe.folder / PIECES / "config.yaml"
    sizes.parent.mkdir(parents=True)
    conf = {"decoder": "cif_whisper", "decoder_conf": {"size": 768, "num_blocks": 12}}
    sizes.write_text(yaml.safe_dump(conf))
    done = recipe.run(*SYSTEM, "--asr_args", "--seed 3", *arguments)
    assert done.returncode == 0, done.stderr
    found = recipe.trainings()
    assert [(one.stage, one.stop_stage) for one in found] == stages
    for one in found:
        assert (one.asr_config, one.inference_config, one.train_set) == (
            "conf/train_asr_cif_whisper_decoder.yaml",
            "conf/decode_asr_whisper_decoder.yaml",
            "train_clean_100",
        )
        assert (recipe.folder / one.inference_config).is_file()
        assert (one.feats_normalize, one.nbpe, one.bpemode) == ("none", 8000, "bpe")
    if stages[-1][1] > 4:
        assert found[-1].pretrained_model == f"{PIECES}/decoder.pth:decoder:decoder"
        assert found[-1].asr_tag == "whisper_decoder"
        assert found[-1].asr_args.split() == [
            *("--frontend_conf", "teacher=downloads/whisper"),
            *("--decoder_conf", "num_blocks=12", "--decoder_conf", "size=768"),
            *("--seed", "3"),
        ]
    (prepare,) = recipe.python()
    assert prepare == [
        *("-m", "espnet_cif_hkd.cli.whisper_decoder", "downloads/whisper", PIECES),
        *("--language", "en", "--text", "data/train_clean_100/text"),
        *("--pieces", "8000"),
    ]


def test_another_whisper_and_more_speech(recipe: RecordedRecipe) -> None:
    (recipe.folder / "downloads/whisper").rename(recipe.folder / "english")
    words = ("--whisper", "english", "--whisper_language", "none", "--hours", "960")
    done = recipe.run(*SYSTEM, *words)
    assert done.returncode == 0, done.stderr
    (prepare,) = recipe.python()
    pieces = "data/en_token_list/bpe_bpe8000"
    assert prepare[2:] == [
        *("english", pieces, "--text", "data/train_960/text", "--pieces", "8000")
    ]


def test_a_language_model_is_used(recipe: RecordedRecipe) -> None:
    assert recipe.run(*SYSTEM, "--use_lm", "true").returncode == 0
    found = {one.inference_config for one in recipe.trainings()}
    assert found == {"conf/decode_asr_lm.yaml"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--whisper", "none/here"],
            "--whisper none/here: there is no model.safetensors; put the files of a "
            "Whisper there, e.g. hf download openai/whisper-small --local-dir "
            "none/here",
        ),
        (["--units", "wordpiece"], "--system whisper_decoder --units wordpiece: its"),
        (["--pretrain", "true"], "--pretrain true --system whisper_decoder: there are"),
    ],
)
def test_refused_at_once(
    recipe: RecordedRecipe, words: list[str], message: str
) -> None:
    done = recipe.run(*SYSTEM, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
    assert not recipe.calls()


def test_decoding_needs_no_whisper_folder(recipe: RecordedRecipe) -> None:
    done = recipe.run(*SYSTEM, "--whisper", "gone", "--stage", "12")
    assert done.returncode == 0 and not recipe.python()


def _make_small(path: Path) -> None:
    conf: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    conf["encoder_conf"]["encoder_conf"].update(
        output_size=8, attention_heads=2, linear_units=16, num_blocks=1
    )
    conf.update(batch_bins=2_000_000, max_epoch=2, num_workers=0, use_amp=False)
    conf.update(use_matplotlib=False, use_tensorboard=False, keep_nbest_models=2)
    path.write_text(yaml.safe_dump(conf))


@pytest.mark.slow
def test_the_complete_recipe_on_a_miniature(tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    layout.init(["librispeech", str(folder)])
    clips = english(sum(COUNTS.values()))
    write_librispeech(folder / "downloads", clips)
    _make_small(folder / "conf/train_asr_cif_whisper_decoder.yaml")
    texts = [clip.words.lower() for clip in clips]
    build_bpe_whisper(folder / "downloads/whisper", texts, 400, seconds=8)
    # The 24 characters of train-clean-100 and all 144 merges.
    pieces = 24 + 400 - 256
    words = [*SYSTEM, "--incomplete", "true", "--nbpe", str(pieces)]
    words += ["--stop_stage", "13"]
    words += ["--ngpu", "0", "--nj", "1", "--inference_nj", "1"]
    environment = {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"}
    done = subprocess.run(
        ["bash", "run.sh", *words],
        cwd=folder,
        env={**environment, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    exp = folder / "exp/100h/asr_whisper_decoder"
    config = yaml.safe_load((exp / "config.yaml").read_text(encoding="utf-8"))
    assert config["decoder_conf"]["size"] == 8
    assert config["init_param"] and (exp / "train.total_count.ave.pth").is_file()
    for name in ("test_clean", "test_other"):
        (decoded,) = exp.glob(f"*/{name}/text")
        assert set(read_table(decoded)) == set(read_table(folder / f"data/{name}/text"))
