"""LibriSpeech's recipe with Whisper's decoder: its calls, and a miniature of it."""

from pathlib import Path

import pytest
import yaml
from bpe_whisper import build_bpe_whisper
from miniature.english import english
from miniature.librispeech import COUNTS, write_librispeech
from recorded_recipe import RecordedRecipe
from whisper_recipe import CONF, SIZED, SYSTEM, recorded, run_small, write_sizes

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import layout

PIECES = "data/en_100_token_list/bpe_bpe8000"


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    return recorded("librispeech", tmp_path / "recipe")


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
    write_sizes(recipe.folder / PIECES)
    done = recipe.run(*SYSTEM, "--asr_args", "--seed 3", *arguments)
    assert done.returncode == 0, done.stderr
    found = recipe.trainings()
    assert [(one.stage, one.stop_stage) for one in found] == stages
    for one in found:
        assert (one.asr_config, one.inference_config, one.train_set) == (
            CONF,
            "conf/decode_asr_whisper_decoder.yaml",
            "train_clean_100",
        )
        assert (recipe.folder / one.inference_config).is_file()
        assert (one.feats_normalize, one.nbpe, one.bpemode) == ("none", 8000, "bpe")
    if stages[-1][1] > 4:
        assert found[-1].pretrained_model == f"{PIECES}/decoder.pth:decoder:decoder"
        assert found[-1].asr_tag == "whisper_decoder"
        assert found[-1].asr_args.split() == [*SIZED, "--seed", "3"]
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


@pytest.mark.slow
def test_the_complete_recipe_on_a_miniature(tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    layout.init(["librispeech", str(folder)])
    clips = english(sum(COUNTS.values()))
    write_librispeech(folder / "downloads", clips)
    texts = [clip.words.lower() for clip in clips]
    build_bpe_whisper(folder / "downloads/whisper", texts, 400, seconds=8)
    # The 24 characters of train-clean-100 and all 144 merges.
    pieces = 24 + 400 - 256
    run_small(folder, "--incomplete", "true", "--nbpe", str(pieces))
    exp = folder / "exp/100h/asr_whisper_decoder"
    config = yaml.safe_load((exp / "config.yaml").read_text(encoding="utf-8"))
    assert config["decoder_conf"]["size"] == 8
    assert config["init_param"] and (exp / "train.total_count.ave.pth").is_file()
    for name in ("test_clean", "test_other"):
        (decoded,) = exp.glob(f"*/{name}/text")
        assert set(read_table(decoded)) == set(read_table(folder / f"data/{name}/text"))
