"""AISHELL-1's recipe with Whisper's decoder: its calls, and a miniature of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from bpe_whisper import build_bpe_whisper
from miniature.aishell import write_aishell
from miniature.speech import mandarin
from recorded_recipe import RecordedRecipe
from whisper_recipe import CONF, SIZED, SYSTEM, recorded, run_small, write_sizes

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import layout

UNITS = Path("data/zh_token_list")


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    return recorded("aishell", tmp_path / "recipe")


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        ([], [(1, 5), (6, 10000)]),
        (["--stop_stage", "5"], [(1, 5)]),
        (["--stage", "11", "--stop_stage", "11"], [(11, 11)]),
    ],
)
def test_the_stages(
    recipe: RecordedRecipe, arguments: list[str], stages: list[tuple[int, int]]
) -> None:
    write_sizes(recipe.folder / UNITS / "char_whisper")
    done = recipe.run(*SYSTEM, "--asr_args", "--seed 3", *arguments)
    assert done.returncode == 0, done.stderr
    found = recipe.trainings()
    assert [(one.stage, one.stop_stage) for one in found] == stages
    for one in found:
        assert (one.asr_config, one.token_type, one.feats_normalize) == (
            *(CONF, "char", "none"),
        )
        assert one.asr_tag == "whisper_decoder"
        assert (recipe.folder / one.inference_config).is_file()
        assert one.inference_config == "conf/decode_asr_whisper_decoder.yaml"
    if stages[-1][1] > 5:
        wanted = f"{UNITS}/char_whisper/decoder.pth:decoder:decoder"
        assert found[-1].pretrained_model == wanted
        assert found[-1].asr_args.split() == [*SIZED, "--seed", "3"]
    (prepare,) = recipe.python()
    assert prepare == [
        *("-m", "espnet_cif_hkd.cli.whisper_decoder", "downloads/whisper"),
        *(f"{UNITS}/char_whisper", "--language", "zh"),
        *("--token_list", f"{UNITS}/char/tokens.txt"),
    ]


def test_without_a_whisper_it_is_refused_before_training(
    recipe: RecordedRecipe,
) -> None:
    done = recipe.run(*SYSTEM, "--whisper", "none/here")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --whisper none/here: there is no model")
    assert not recipe.calls()
    assert recipe.run(*SYSTEM, "--whisper", "gone", "--stage", "12").returncode == 0


def test_a_language_model_is_used(recipe: RecordedRecipe) -> None:
    assert recipe.run(*SYSTEM, "--use_lm", "true").returncode == 0
    found = {one.inference_config for one in recipe.trainings()}
    assert found == {"conf/decode_asr_lm.yaml"}


def test_the_other_systems_stay_as_they_are(recipe: RecordedRecipe) -> None:
    assert recipe.run("--system", "cif").returncode == 0
    (one,) = recipe.trainings()
    assert (one.feats_normalize, one.asr_tag, one.pretrained_model) == (
        *("utterance_mvn", "", ""),
    )


def test_the_options_are_those_of_librispeech() -> None:
    def load(corpus: str) -> Any:
        path = Path(__file__).parents[2] / "egs2" / corpus / "asr_hkd" / CONF
        return yaml.safe_load(path.read_text(encoding="utf-8"))

    here, there = load("aishell"), load("librispeech")
    # HSK gains nothing by it.
    assert there["model_conf"].pop("length_conf")
    assert here == there


@pytest.mark.slow
def test_the_complete_recipe_on_a_miniature(tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    layout.init(["aishell", str(folder)])
    write_aishell(folder / "downloads", mandarin(16))
    # Its tokens are bytes and merges of English: each character has three of them.
    texts = ["these horses hire hobos"] * 2
    build_bpe_whisper(folder / "downloads/whisper", texts, 270, seconds=8)
    printed = run_small(folder)
    tokens = (folder / UNITS / "char/tokens.txt").read_text().split()
    assert f"{len(tokens)} units, {len(tokens) - 3} of several" in printed
    exp = folder / "exp/asr_whisper_decoder"
    config = yaml.safe_load((exp / "config.yaml").read_text(encoding="utf-8"))
    assert config["decoder_conf"]["size"] == 8 and config["token_list"] == tokens
    assert config["init_param"] and (exp / "train.total_count.ave.pth").is_file()
    (decoded,) = exp.glob("*/test/text")
    assert set(read_table(decoded)) == set(read_table(folder / "data/test/text"))
