"""The configurations with soft labels: what they share with those without."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from configured_model import build
from four_systems import load

from espnet_cif_hkd.distill.choices import configured
from espnet_cif_hkd.distill.level_options import Level, level_options

EGS2 = Path(__file__).parents[2] / "egs2"
PAIRS = [(corpus, "cif") for corpus in ("fotaq", "hsk", "aishell", "librispeech")]
PAIRS.append(("fotaq", "cif_whisper"))


def conf_of(corpus: str) -> Path:
    return EGS2 / corpus / "asr_hkd/conf"


def levels(config: dict[str, Any]) -> dict[str, Level]:
    (item,) = configured(config["model_conf"])
    assert item.kind == "soft_labels"
    return {one.name: one for one in level_options(item.conf["levels"])}


@pytest.mark.parametrize(("corpus", "system"), PAIRS)
def test_only_the_criterion_differs(corpus: str, system: str) -> None:
    conf = conf_of(corpus)
    alone, soft = load(conf, system), load(conf, f"{system}_soft")
    assert soft["model_conf"].pop("criteria")
    assert alone["model_conf"].pop("criterion", None) is None
    assert alone == soft
    texts = [
        (conf / f"train_asr_{name}.yaml").read_text().splitlines()
        for name in (system, f"{system}_soft")
    ]
    without = [line for line in texts[0] if "criterion: null" not in line]
    body = without.index("frontend: default" if system == "cif" else without[4])
    assert set(without[body:]) <= set(texts[1]), "comments, too"


@pytest.mark.parametrize(("corpus", "system"), PAIRS)
def test_a_finer_unit_at_a_lower_layer(corpus: str, system: str) -> None:
    config = load(conf_of(corpus), f"{system}_soft")
    found = levels(config)
    used = {name: one for name, one in found.items() if one.is_used}
    phone, own = used.values()
    assert phone.name == "phone" and phone.unit["unit"] == "lexicon"
    layer = int(phone.options.tap.removeprefix("layer:"))
    assert 1 <= layer < config["encoder_conf"]["num_blocks"]
    assert own.options.tap == "hs_pad" and own.unit == {"unit": "token"}
    # Label interpolation is prepared, with the labels of the recogniser's tokens.
    output = found["output"]
    assert output.is_output and output.options.interpolation == 0.0
    assert (output.unit, output.lm) == (own.unit, own.lm)
    stores = [one.store for one in used.values()]
    assert len(set(stores)) == len(stores)


@pytest.mark.parametrize("corpus", ["fotaq", "hsk", "aishell", "librispeech"])
def test_espnet_knows_every_option_of_the_language_model(corpus: str) -> None:
    from espnet_cif_hkd.recipe.checks.config import lm_training_args

    path = conf_of(corpus) / "train_lm_level.yaml"
    args = lm_training_args(str(path), "")
    given = yaml.safe_load(path.read_text())
    assert set(given) <= set(vars(args))
    assert ["valid", "loss", "min"] in [list(one) for one in args.best_model_criterion]


def files(one: Level, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files of a level's unit in a folder of a run."""
    monkeypatch.chdir(folder)
    for name, text in (
        ("unit_token_list", "<blank>\n<unk>\nA\nB\n<sos/eos>\n"),
        ("lexicon", "AB A B\n"),
    ):
        if one.unit.get(name):
            path = Path(str(one.unit[name]))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.mark.parametrize(("corpus", "system"), PAIRS[:2])
def test_espnet_builds_the_model(
    corpus: str, system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = conf_of(corpus) / f"train_asr_{system}_soft.yaml"
    for one in levels(load(conf_of(corpus), f"{system}_soft")).values():
        files(one, tmp_path, monkeypatch)
    model = build(path, ["<blank>", "<unk>", "<space>", *"ABC'", "<sos/eos>"])
    heads = {
        name.split(".")[3]
        for name in model.state_dict()
        if name.startswith("criteria.lm.heads.")
    }
    assert heads == {"phone", "char"}
