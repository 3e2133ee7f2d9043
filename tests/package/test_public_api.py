"""The names that users rely on."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

import espnet_cif_hkd

ROOT = Path(__file__).parents[2]


def test_public_names():
    assert set(espnet_cif_hkd.__all__) == {
        "CIFASRModel",
        "CIFDecoder",
        "Speech2Text",
        "UserError",
        "__version__",
        "register",
    }
    assert set(espnet_cif_hkd.__all__) <= set(dir(espnet_cif_hkd))


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("CIFASRModel", "models.cif"),
        ("CIFDecoder", "decoder.cif_decoder"),
        ("Speech2Text", "inference.speech2text"),
        ("UserError", "errors"),
        ("register", "plugin"),
    ],
)
def test_name_is_that_of_its_module(name, home):
    module = importlib.import_module(f"espnet_cif_hkd.{home}")
    assert getattr(espnet_cif_hkd, name) is getattr(module, name)


def test_names_of_recognition_are_those_of_their_modules():
    from espnet_cif_hkd import inference
    from espnet_cif_hkd.inference import (
        Recognition,
        Recognizer,
        recognition,
        recognizer,
    )

    assert Recognition is recognition.Recognition
    assert Recognizer is recognizer.Recognizer
    assert set(inference.__all__) <= set(dir(inference))
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        inference.Recogniser  # noqa: B018


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Speech3Text'"):
        espnet_cif_hkd.Speech3Text  # noqa: B018


def test_user_error_is_a_value_error():
    assert issubclass(espnet_cif_hkd.UserError, ValueError)


def test_the_names_of_the_page_exist():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    rows = re.findall(r"`(espnet_cif_hkd[\w.]*)`: ([^;|\n]+)", page)
    assert len(rows) >= 8
    for module, names in rows:
        loaded = importlib.import_module(module)
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(loaded, name), (module, name)
    public = dict(rows)["espnet_cif_hkd"]
    assert set(re.findall(r"`(\w+)`", public)) == set(espnet_cif_hkd.__all__)


def test_the_citation_is_complete_and_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == espnet_cif_hkd.__version__
    for work in (cited["preferred-citation"], *cited["references"]):
        assert work["title"] and work["authors"] and work["year"]
        assert work["url"].startswith("https://")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'license = "{cited["license"]}"' in project


def test_changelog_begins_with_this_version():
    changelog = ROOT / "CHANGELOG.md"
    first = re.search(r"^## (\S+)", changelog.read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == espnet_cif_hkd.__version__
