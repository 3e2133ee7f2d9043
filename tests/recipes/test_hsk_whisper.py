"""HSK's recipe with Whisper's decoder: its calls and its configuration."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from configured_model import build
from recorded_recipe import RecordedRecipe
from tiny_whisper import build_tiny_whisper
from whisper_recipe import CONF, SYSTEM

UNITS, DECODER = "data/zh_token_list/char", "data/zh_token_list/char_whisper"
RECIPES = Path(__file__).parents[2] / "egs2"


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    return RecordedRecipe("hsk", tmp_path / "recipe")


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        ([], [(1, 5), (6, 10000)]),
        (["--stage", "5", "--stop_stage", "5"], [(5, 5)]),
        (["--stop_stage", "4"], [(1, 4)]),
        (["--stage", "10", "--stop_stage", "11"], [(10, 11)]),
        (["--stage", "12"], [(12, 10000)]),
    ],
)
def test_the_decoder_keeps_the_units_of_stage_5(
    recipe: RecordedRecipe, arguments: list[str], stages: list[tuple[int, int]]
) -> None:
    done = recipe.run(*SYSTEM, *arguments)
    assert done.returncode == 0, done.stderr
    found = recipe.trainings()
    assert [(one.stage, one.stop_stage) for one in found] == stages
    for one in found:
        assert (one.asr_config, one.token_type) == (CONF, "char")
        assert one.feats_normalize == "none"
        assert one.inference_config == "conf/decode_asr_whisper_decoder.yaml"
        assert (recipe.folder / one.inference_config).is_file()
    if stages[-1][1] > 10:
        wanted = f"{DECODER}/decoder.pth:decoder:decoder"
        assert found[-1].pretrained_model == wanted
    if stages[-1][0] > 11 or stages[-1][1] < 5:
        assert not recipe.python()
        return
    convert, prepare = recipe.python()
    assert convert[-2:] == ["whisper-base", "downloads/whisper_base"]
    assert prepare == [
        *("-m", "espnet_cif_hkd.cli.whisper_decoder", "downloads/whisper_base"),
        *(DECODER, "--language", "zh", "--token_list", f"{UNITS}/tokens.txt"),
    ]


def test_the_control_begins_with_random_parameters(recipe: RecordedRecipe) -> None:
    assert recipe.run(*SYSTEM, "--whisper_init", "false").returncode == 0
    assert [one.pretrained_model for one in recipe.trainings()] == ["", ""]


def test_a_subset_has_its_units_and_its_decoder(recipe: RecordedRecipe) -> None:
    done = recipe.run(*SYSTEM, "--subset", "1000")
    assert done.returncode == 0, done.stderr
    (_, prepare), lang = recipe.python(), recipe.trainings()[-1].lang
    assert lang != "zh"
    assert prepare[3] == f"data/{lang}_token_list/char_whisper"
    assert prepare[-1] == f"data/{lang}_token_list/char/tokens.txt"
    assert recipe.trainings()[-1].pretrained_model.startswith(prepare[3])


def test_the_other_systems_stay_as_they_are(recipe: RecordedRecipe) -> None:
    done = recipe.run("--system", "cif")
    assert done.returncode == 0, done.stderr
    (one,) = recipe.trainings()
    assert (one.feats_normalize, one.pretrained_model) == ("utterance_mvn", "")
    assert one.inference_config == "conf/decode_asr.yaml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--whisper_init", "maybe"], "--whisper_init maybe: choose true or false"),
        (["--system", "whisper"], "--system whisper: choose"),
    ],
)
def test_wrong_options_are_one_line(
    recipe: RecordedRecipe, arguments: list[str], message: str
) -> None:
    done = recipe.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not recipe.calls()


def load(corpus: str) -> dict[str, Any]:
    text = (RECIPES / corpus / "asr_hkd" / CONF).read_text()
    conf: dict[str, Any] = yaml.safe_load(text)
    return conf


def test_the_configuration_is_that_of_fotaq() -> None:
    here, there = load("hsk"), load("fotaq")
    assert here["frontend_conf"].pop("fs") == 16000
    there["frontend_conf"].pop("fs")
    assert there["model_conf"].pop("length_conf")  # no gain on dev
    assert here == there


def test_espnet_builds_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_tiny_whisper(Path("downloads/whisper_base"), 0, 12)
    conf = load("hsk")
    conf["decoder_conf"] |= {"size": 12, "attention_heads": 2, "num_blocks": 1}
    Path("here.yaml").write_text(yaml.safe_dump(conf))
    tokens = ["<blank>", "<unk>", *"老师您好", "<sos/eos>"]
    model = build(Path("here.yaml"), tokens)
    assert model.decoder.output_layer.weight.shape == (7, 12)
