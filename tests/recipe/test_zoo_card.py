"""The model card: its content, and the sources of its content."""

import dataclasses
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from finished_recipe import ASR_EXP, finished
from packed_model import ARCHIVE, DECODING, OPTIONS, packed

from espnet_cif_hkd import UserError, __version__
from espnet_cif_hkd.models.checkpoint import VERSION_KEY
from espnet_cif_hkd.recipe.share import model_card, upload
from espnet_cif_hkd.recipe.share.packed import Packed, read_packed

__all__ = ["finished", "packed"]

ROOT = Path(__file__).parents[2]


def card_of(recipe: Path, archive: Path, folder: Path) -> str:
    found = read_packed(recipe / archive)
    with zipfile.ZipFile(found.archive) as opened:
        opened.extractall(folder)
    return model_card.build("user/tones", found, folder, DECODING)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with nothing but ``conf/``."""
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_card_has_everything_a_stranger_needs(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(packed)
    card = card_of(packed, ARCHIVE, tmp_path)
    assert f"trained with espnet-cif-hkd {__version__} on ESPnet 20" in card
    assert f"pip install espnet-cif-hkd=={__version__} " in card
    assert f"If no package index has `espnet-cif-hkd=={__version__}`, write" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    assert '"user/tones",\n    beam_size=2,\n    ctc_weight=0.3,\n' in code[1]
    assert max(map(len, code[1].splitlines())) <= 80
    assert "mono, at 8000 Hz" in card
    assert "`model: cif`, `decoder: cif`) and stops with `must be one of`" in card
    teacher = yaml.safe_load((packed / OPTIONS["asr_config"]).read_text())
    name = teacher["model_conf"]["criterion_conf"]["teacher"]
    assert f"Teacher (`criterion: hkd`): `LOCAL_PATH/{Path(name).name}`. It" in card
    assert name not in card and str(packed) not in card
    assert "\n./asr.sh --train_set train --valid_set valid --test_sets test" in card
    assert "Corpus: not stated" in card and "## Licence\n\nnot stated" in card
    results = (packed / ARCHIVE.parent / "RESULTS.md").read_text()
    rows = [line for line in results.splitlines() if line.startswith("|")]
    assert len(rows) >= 6
    for row in rows:
        assert row in card
    assert not re.search(r"^# RESULTS|<!--", card, re.MULTILINE)
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["library_name"] == "espnet" and "license" not in metadata


def test_a_card_says_where_the_package_is(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "git+https://host.example/x/espnet-cif-hkd@0123abc"
    monkeypatch.chdir(packed)
    monkeypatch.setattr(model_card, "FACTS", tmp_path / "facts.yaml")
    model_card.FACTS.write_text(f"package_url: {url}\n")
    card = card_of(packed, ARCHIVE, tmp_path)
    assert f'pip install "espnet-cif-hkd @ {url}" huggingface_hub pandas\n' in card
    assert "package index" not in card
    assert "package_url" not in yaml.safe_load(card.split("---\n")[1])


def test_a_model_of_espnets_own_classes_needs_only_espnet(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    archive = ASR_EXP / "asr_asr_raw_en_char_valid.acc.ave.zip"
    card = card_of(finished, archive, tmp_path)
    assert "from espnet2.bin.asr_inference import Speech2Text" in card
    assert "espnet-cif-hkd" not in card and "must be one of" not in card
    assert "- Teacher: none." in card
    assert "lm_weight=0.1" in card


def test_a_checkpoint_without_version_and_language_model(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(packed)
    found = read_packed(ARCHIVE)
    file = found.files["asr_model_file"]
    state = torch.load(packed / file, weights_only=True)
    del state[VERSION_KEY]
    (tmp_path / file).parent.mkdir(parents=True)
    torch.save(state, tmp_path / file)
    alone = dataclasses.replace(found, files={"asr_model_file": file})
    card = model_card.build("user/tones", alone, tmp_path, DECODING)
    assert "trained with espnet-cif-hkd on ESPnet 20" in card
    assert "lm_weight" not in card


def test_a_tokenizer_of_transformers_needs_transformers(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(packed)
    needless = card_of(packed, ARCHIVE, tmp_path)
    assert "Neither a teacher nor `transformers` is needed" in needless
    found = read_packed(ARCHIVE)
    found.configs["asr_train_config"]["token_type"] = "hugging_face"
    card = model_card.build("user/tones", found, tmp_path, DECODING)
    assert f"pip install espnet-cif-hkd=={__version__} transformers " in card
    assert "`transformers` reads the tokenizer" in card


@pytest.mark.parametrize(
    ("model_conf", "line"),
    [
        (
            {
                "criterion": "hkd",
                "criterion_conf": {
                    "teacher": "bert-base-chinese",
                    "teacher_revision": "8f23c25b",
                },
            },
            "`bert-base-chinese`, revision `8f23c25b`. It was used in training only.",
        ),
        (
            {
                "criteria": {
                    "lm": {"type": "soft_labels", "levels": {"a": {"lm": "x/y"}}}
                }
            },
            "Teacher (`criteria.lm: soft_labels, levels.a`): `x/y`. It",
        ),
        (
            {
                "criteria": {
                    "text": {"type": "hkd", "teacher": "t"},
                    "speech": {
                        "type": "frames",
                        "teachers": {
                            "random": None,
                            "wavlm": {"teacher": "m/wavlm", "teacher_revision": "9a"},
                        },
                    },
                }
            },
            "(`criteria.speech: frames, teachers.wavlm`): `m/wavlm`, revision `9a`. It",
        ),
        ({"criterion": None, "criterion_conf": {"teacher": "x"}}, "- Teacher: none."),
        ({"criterion": "none", "criterion_conf": {"teacher": "x"}}, "- Teacher: none."),
    ],
    ids=["hub", "level", "several", "null", "none"],
)
def test_the_teacher_is_named_if_it_taught(
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_conf: dict[str, Any],
    line: str,
) -> None:
    monkeypatch.chdir(packed)
    found = read_packed(ARCHIVE)
    with zipfile.ZipFile(found.archive) as opened:
        opened.extractall(tmp_path)
    found.configs["asr_train_config"]["model_conf"] = model_conf
    assert line in model_card.build("user/tones", found, tmp_path, DECODING)


def test_the_command_that_trained(empty: Path) -> None:
    assert model_card.training_command(empty) is None
    script = empty / "run.sh"
    script.write_text('./asr.sh --lang "zh a" --nj 4 --stage 11 "$@"; exit $?\n')
    assert model_card.training_command(empty) == './asr.sh --lang "zh a" --nj 4'


def test_decoding_options(empty: Path) -> None:
    Path("conf/decode.yaml").write_text(
        "beam_size: 10\nctc_weight: 0.3\nnbest: 5\nlog_level: INFO\n"
    )
    found = model_card.decoding_options("conf/decode.yaml", "--beam_size 3 --ngpu=1")
    assert found == {"beam_size": 3, "ctc_weight": 0.3}
    assert model_card.decoding_options("", "--lm-weight 0.5") == {"lm_weight": 0.5}
    assert model_card.decoding_options("conf/none.yaml", "") == {}


def test_the_facts_are_metadata_and_text(empty: Path) -> None:
    assert model_card.read_facts() == {}
    model_card.FACTS.write_text("# nothing yet\n")
    assert model_card.read_facts() == {}
    model_card.FACTS.write_text("license: mit\nnotes: a note\ntags: [mine]\n")
    assert model_card.read_facts()["notes"] == "a note"


def test_facts_are_published_without_paths_and_secrets(empty: Path) -> None:
    link = "https://host.example/resources.php?id=33#files"
    model_card.FACTS.write_text(
        "corpus: 'Mine, /data/me/speech, from "
        f"{link}'\n"
        "notes: 'https://me:pw@host.example/x?token=abcdef hf_abcdefghijkl'\n"
        "datasets: ['/data/me/set']\n"
    )
    facts = model_card.read_facts()
    assert facts["corpus"] == f"Mine, LOCAL_PATH/speech, from {link}"
    assert facts["notes"] == "https://host.example/x?token=HIDDEN HIDDEN"
    assert facts["datasets"] == ["LOCAL_PATH/set"]


def test_facts_reach_the_card(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(packed)
    monkeypatch.setattr(model_card, "FACTS", tmp_path / "facts.yaml")
    model_card.FACTS.write_text("license: mit\nnotes: a note\ntags: [mine]\n")
    card = card_of(packed, ARCHIVE, tmp_path)
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == "mit" and metadata["tags"] == ["mine"]
    assert "notes" not in metadata
    assert "## Licence\n\nmit. Corpora" in card and card.endswith("\n\na note\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must contain 'key: value' lines"),
        ("a: [\n", "is not YAML"),
        ("corpus: [a, b]\n", "corpus must be text"),
        ("package_url: 3\n", "package_url must be text"),
        ("package_url: espnet-cif-hkd\n", "is no address for pip"),
        ("package_url: 'https://x/$(id)'\n", "is no address for pip"),
        ("package_url: git+https://me:pw@x/y\n", "has a password or a token"),
        ("package_url: git+https://ghp_abcdefgh12@x/y\n", "has a password or a token"),
        ("package_url: 'https://x/y.whl?token=ab'\n", "has a password or a token"),
    ],
)
def test_malformed_facts(empty: Path, text: str, message: str) -> None:
    model_card.FACTS.write_text(text)
    with pytest.raises(UserError, match=message):
        model_card.read_facts()


@pytest.mark.parametrize(
    "facts", sorted(ROOT.glob("egs2/*/asr_hkd/conf/model_card.yaml")), ids=str
)
def test_the_facts_of_our_recipes(facts: Path, empty: Path) -> None:
    shutil.copyfile(facts, model_card.FACTS)
    found = model_card.read_facts()
    assert found["corpus"] and found["language"] in ("en", "zh")
    # Whoever trains a model chooses its licence.
    assert "license" not in found


def test_a_token_that_an_old_zoo_takes_for_a_path_is_reported(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def packed_with(tokens: list[str]) -> Packed:
        config: dict[str, Any] = {"token_list": tokens}
        names = ["meta.yaml", "exp/asr_x/config.yaml"]
        return Packed(Path("x.zip"), names, 0, {}, {}, {"asr_train_config": config}, {})

    upload.warn_of_path_tokens(packed_with(["<blank>", "a", "asr_x", "."]))
    assert capfd.readouterr().out == ""
    upload.warn_of_path_tokens(packed_with(["<blank>", "exp", "a"]))
    assert "the token 'exp' is also the name of" in capfd.readouterr().out
