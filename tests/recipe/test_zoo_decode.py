"""A shared model decodes as before packing, also without any language model package."""

import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
import tiny_recipe
from finished_recipe import finished
from loopback_hub import Hub
from packed_model import ARCHIVE, DECODING, EXP, OPTIONS, packed
from without_packages import LANGUAGE_MODELS, packages_without, run_json

from espnet_cif_hkd import __version__
from espnet_cif_hkd.io.tables import read_table

__all__ = ["finished", "packed"]

pytest.importorskip("espnet_model_zoo", reason="what unpacks shared models")
pytest.importorskip("huggingface_hub", reason="what downloads shared models")

ROOT = Path(__file__).parents[2]
REPO = "user/tones"
UTTERANCE = "spk1-test1"
# One process for everything: importing ESPnet takes ten to twenty seconds.
CODE = """
import importlib.metadata, importlib.util, json, sys
import soundfile
from espnet_model_zoo.downloader import ModelDownloader

hidden, archive, repo, decoding, card_code, page_code = json.loads(sys.stdin.read())
found = {"installed": [name for name in hidden if importlib.util.find_spec(name)]}
samples = soundfile.read("speech.wav")[0]
files = ModelDownloader("zoo").download_and_unpack(archive)
found["files"] = sorted(files)

from espnet2.bin.asr_inference import Speech2Text as ESPnetSpeech2Text

try:
    ESPnetSpeech2Text(**files, **decoding)
except Exception as error:
    found["unregistered"] = str(error)

import espnet_cif_hkd

espnet_cif_hkd.register()
found["espnet"] = ESPnetSpeech2Text(**files, **decoding)(samples)[0][0]
ours = espnet_cif_hkd.Speech2Text(**files, **decoding)
found["ours"] = ours(samples)[0][0]
found["made_by"] = espnet_cif_hkd.models.checkpoint.made_by(ours.asr_model.state_dict())
found["zip"] = espnet_cif_hkd.Speech2Text.from_pretrained(archive, **decoding)(
    samples
)[0][0]

downloaded = ModelDownloader("zoo").download_and_unpack(repo)
found["downloaded"] = ESPnetSpeech2Text(**downloaded, **decoding)(samples)[0][0]
names = {}
exec(card_code, names)
found["card"] = names["text"]
found["card_class"] = type(names["speech2text"]).__module__
names = {}
# The model has fewer tokens than ESPnet's default beam.
exec(page_code.replace('"USER/NAME"', f'"{repo}", beam_size=2'), names)
found["page"] = [names["text"], type(names["speech2text"]).__module__]
found["imported"] = sorted(set(sys.modules) & set(hidden))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a user finds who has the archive, the repository and no language model."""
    home = tmp_path_factory.mktemp("user")
    packages = packages_without(home / "packages", LANGUAGE_MODELS)
    recording = read_table(packed / "dump/raw/test/wav.scp")[UTTERANCE]
    samples, rate = soundfile.read(packed / recording)
    soundfile.write(home / "speech.wav", samples, rate)
    (home / "archive.zip").write_bytes((packed / ARCHIVE).read_bytes())
    words = tiny_recipe.options(
        lang="en", stage="15", skip_upload_hf="false", hf_repo=REPO, **OPTIONS
    )
    with Hub() as hub:
        uploaded = hub.recipe(home, *words, cwd=packed)
        assert uploaded.returncode == 0, uploaded.stderr
        card = hub.repositories[REPO].files["README.md"].content.decode()
        code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
        assert code is not None
        page = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
        (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        given = [LANGUAGE_MODELS, "archive.zip", REPO, DECODING, code[1], lines]
        found = run_json(packages, CODE, home, hub.environment(home, None), given)
    expected = read_table(packed / EXP / decoded_folder(packed) / "test/text")
    return {"card_text": card, "expected": expected[UTTERANCE], **found}


def decoded_folder(packed: Path) -> str:
    [folder] = (packed / EXP).glob("decode_*")
    return folder.name


def test_no_language_model_is_there(found: dict[str, Any]) -> None:
    assert found["installed"] == []
    assert found["imported"] == []


def test_the_zoo_unpacks_the_archive(found: dict[str, Any]) -> None:
    assert found["files"] == [
        *("asr_model_file", "asr_train_config", "lm_file", "lm_train_config")
    ]


@pytest.mark.parametrize("way", ["ours", "espnet", "zip", "downloaded", "card"])
def test_the_text_is_that_of_stage_12(found: dict[str, Any], way: str) -> None:
    assert found["expected"]
    assert found[way] == found["expected"]


def test_the_card_uses_our_class(found: dict[str, Any]) -> None:
    assert found["card_class"] == "espnet_cif_hkd.inference.speech2text"
    assert found["made_by"] == __version__


def test_the_three_lines_of_the_page_open_an_upload(found: dict[str, Any]) -> None:
    text, module = found["page"]
    assert isinstance(text, str) and module == "espnet_cif_hkd.inference.speech2text"


def test_without_registration_espnet_says_must_be_one_of(found: dict[str, Any]) -> None:
    message = found["unregistered"]
    assert "must be one of" in message
    assert message.endswith(("--decoder cif", "--model cif"))
    assert "`must be one of`" in found["card_text"]
    cure = "import espnet_cif_hkd; espnet_cif_hkd.register()"
    assert cure in found["card_text"]
    sharing = ROOT / "docs" / "sharing.md"
    assert "must be one of" in sharing.read_text(encoding="utf-8")
