"""docs/configuration.md says what the code says."""

import re
from pathlib import Path

import generate_docs
import pytest
import yaml

from espnet_cif_hkd.distill import HKDCriterion, Student
from espnet_cif_hkd.distill.taps import MODEL_TAPS

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(ROOT.glob("egs2/*/asr_hkd/conf/train_asr_cif*.yaml"))


@pytest.fixture(scope="module")
def tool():
    return generate_docs


@pytest.fixture(scope="module")
def keys(tool):
    return {
        section: {key.name: key for key in found}
        for section, found in tool.sections().items()
    }


def test_the_page_is_what_the_code_says(tool):
    assert tool.page() == tool.PAGE.read_text(encoding="utf-8"), (
        "docs/configuration.md is out of date: python3 tools/generate_docs.py"
    )


def test_every_key_has_an_effect(keys):
    for section, found in keys.items():
        assert found, section
        assert all(key.effect for key in found.values()), section


class Undocumented:
    """Something.

    Args:
        known: Documented.
    """

    def __init__(self, known: int, forgotten: float = 1.0) -> None: ...


class Grouped:
    """Two names in one entry, one over two lines.

    Args:
        first, second: Both
            are documented, ``a | b``.

    Raises:
        third: Not an argument.
    """

    def __init__(
        self, first: list[int] | None, second: bool = True, third: str = "no"
    ) -> None: ...


def test_a_key_without_effect_is_refused(tool):
    with pytest.raises(ValueError, match=r"Undocumented.*forgotten"):
        list(tool.keys_of(Undocumented))


def test_what_is_read_of_a_signature_and_its_docstring(tool):
    first = next(iter(tool.keys_of(Grouped, only="first")))
    second = next(iter(tool.keys_of(Grouped, only="second")))
    assert first == tool.Key(
        "first", "list of int or null", "", r"Both are documented, `a \| b`"
    )
    assert second == tool.Key("second", "bool", "true", first.effect)
    with pytest.raises(ValueError, match="third"):
        list(tool.keys_of(Grouped, only="third"))


def test_a_value_for_an_unknown_key_is_refused(tool):
    paper = {"values": {"linguistic": {"strength": [1.0, "s"]}}}
    with pytest.raises(ValueError, match="strength"):
        tool.table("linguistic", tool.sections()["linguistic"], paper)


def mappings(config):
    """The mappings of a training configuration that are ours, by name."""
    criterion = config["model_conf"].get("criterion_conf") or {}
    decoder = "decoder_conf" if config["decoder"] == "cif" else config["decoder"]
    found = {
        "model_conf": config["model_conf"],
        decoder: config["decoder_conf"],
        "predictor_conf": config["decoder_conf"]["predictor_conf"],
        "criterion_conf": criterion,
        "acoustic": criterion.get("acoustic") or {},
        "linguistic": criterion.get("linguistic") or {},
    }
    names = {"cif_conformer": "encoder_conf", "joined": "joined"}
    if config["encoder"] in names:
        found[names[config["encoder"]]] = config["encoder_conf"]
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parts[-4]}-{p.stem}")
def test_the_page_has_every_key_of_the_recipes(path, keys):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, given in mappings(config).items():
        assert set(given) <= set(keys[section]), section


def test_the_recipe_of_the_papers_corpus_has_the_papers_values(tool, keys):
    path = ROOT / "egs2/aishell/asr_hkd/conf/train_asr_cif_hkd.yaml"
    given = mappings(yaml.safe_load(path.read_text(encoding="utf-8")))
    # null is the size of an encoder frame
    given["predictor_conf"].setdefault(
        "conv_channels", given["encoder_conf"]["output_size"]
    )
    for section, values in tool.paper_values()["values"].items():
        for name, (value, _) in values.items():
            default = yaml.safe_load(keys[section][name].default)
            assert given[section].get(name, default) == value, (section, name)


def test_the_tail_has_one_default(keys):
    """The decoder takes it out of ``predictor_conf`` before the function sees it."""
    from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder

    decoder = CIFDecoder(5, 8, attention_heads=2, linear_units=8, num_blocks=1)
    default = yaml.safe_load(keys["predictor_conf"]["tail_threshold"].default)
    assert decoder.tail_threshold == default


def test_values_given_by_their_paths_change_nothing_else():
    """The lines of the page, read by ESPnet as stage 11 does."""
    import espnet_cif_hkd

    espnet_cif_hkd.register()
    from espnet2.bin.asr_train import get_parser

    conf = ROOT / "egs2/fotaq/asr_hkd/conf/train_asr_cif_hkd.yaml"
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    lines = re.findall(r'--asr_args "(--model_conf criterion.*)"', page)
    changes = []
    student = Student("cif", (), dict.fromkeys(MODEL_TAPS["cif"], 1))
    for line in lines:
        args = get_parser().parse_args(["--config", str(conf), *line.split()])
        expected = yaml.safe_load(conf.read_text())["model_conf"]
        for change in line.replace("--model_conf", "").split():
            place, value = change.split("=")
            _, level, key = place.split(".")
            expected["criterion_conf"][level][key] = yaml.safe_load(value)
            changes.append(change)
        assert args.model_conf == expected
        HKDCriterion(student, **args.model_conf["criterion_conf"])
    assert lines and changes
