"""Models with ``frontend: speech_teacher`` are shared: by value and by reference."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest
import soundfile
import tiny_recipe
import yaml
from tiny_whisper import WIDTH, build_tiny_whisper

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.speech2text import Speech2Text
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe.cli import main
from espnet_cif_hkd.recipe.share import model_card, speech_model
from espnet_cif_hkd.recipe.share.packed import Packed, check_portable, read_packed

EXP = Path("exp/asr_speech_raw_en_char")
PACKED = EXP / "asr_speech_raw_en_char_valid.acc.ave.zip"

UNSTATED = "not stated by the maker of this model"


def config_of(**conf):
    conf = {"teacher": "pkg://dist/whisper", "teacher_dim": WIDTH, **conf}
    return {"frontend": "speech_teacher", "frontend_conf": conf}


@pytest.mark.slow
def test_by_value_a_stranger_needs_the_archive_only(tmp_path, monkeypatch):
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(tiny_recipe.CIF_CONFIG)
    teacher = build_tiny_whisper(tmp_path / "secret/whisper")
    config |= config_of(teacher=teacher, weights="value", pool=1, teacher_store="st")
    config["encoder_conf"]["input_layer"] = "linear"
    config |= {"max_epoch": 2, "keep_nbest_models": 2}  # an average of two
    Path("conf/speech.yaml").write_text(yaml.safe_dump(config))
    words = tiny_recipe.options(
        *(), lang="en", asr_config="conf/speech.yaml", skip_packing="false"
    )
    assert main([*words, "--feats_normalize", "utterance_mvn"]) == 0
    shutil.rmtree("secret")
    shutil.rmtree("st")
    decoded = read_table(next(EXP.glob("decode_*")) / "test/text")
    recordings = read_table(Path("dump/raw/test/wav.scp"))
    packed = read_packed(PACKED)
    elsewhere = tmp_path / "elsewhere"
    with zipfile.ZipFile(PACKED) as opened:
        opened.extractall(elsewhere)
    card = model_card.build("user/tones", packed, elsewhere, {})
    assert "(`frontend: speech_teacher`, frozen): `LOCAL_PATH/whisper`. Its" in card
    assert "Its weights are in the checkpoint of this repository." in card
    assert (
        "transformers huggingface_hub pandas" in card and "`transformers` runs" in card
    )
    assert "secret" not in card
    os.chdir(elsewhere)
    recogniser = Speech2Text(
        *(packed.config_files["asr_train_config"], packed.files["asr_model_file"]),
        beam_size=2,
        ctc_weight=0.3,
        maxlenratio=-5.0,
    )
    for utterance, path in recordings.items():
        samples, _ = soundfile.read(tmp_path / path)
        assert recogniser(samples)[0][0].strip() == decoded.get(utterance, "").strip()


@pytest.mark.parametrize(
    ("conf", "portable"),
    [
        ({}, True),
        ({"teacher": "user/whisper", "teacher_revision": "0" * 40}, True),
        ({"teacher": "here"}, False),
        ({"teacher": "{cwd}/here"}, False),
        ({"teacher": "here", "weights": "value"}, True),
        ({"teacher": "here", "train": True}, True),
    ],
)
def test_a_folder_of_this_machine(tmp_path, monkeypatch, conf, portable):
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    if "teacher" in conf:
        conf = {**conf, "teacher": conf["teacher"].format(cwd=tmp_path)}
    packed = Packed(
        archive=Path("x.zip"),
        members=["c.yaml"],
        size=1,
        files={},
        config_files={"asr_train_config": "c.yaml"},
        configs={"asr_train_config": config_of(**conf)},
        meta={},
    )
    if portable:
        check_portable(packed)
        return
    with pytest.raises(UserError, match=r"c.yaml: frontend_conf.teacher .*weights: v"):
        check_portable(packed)


def installed(folder, metadata):
    """A pip package ``dist`` with a folder ``whisper``."""
    (folder / "whisper").mkdir(parents=True)
    info = folder / "dist-1.0.dist-info"
    info.mkdir()
    text = "Metadata-Version: 2.1\nName: dist\nVersion: 1.0\n"
    (info / "METADATA").write_text(text + metadata)


@pytest.mark.parametrize(
    ("metadata", "readme", "facts", "licence"),
    [
        ("License: MIT\n", None, {}, "MIT (of the package dist)"),
        (
            "License-Expression: BSL-1.0\n",
            None,
            {},
            "BSL-1.0 (of the package dist)",
        ),
        ("License: MIT\n", "---\nlicense: cc0-1.0\n---\ntext\n", {}, "cc0-1.0"),
        ("License: MIT\n", "no header", {}, "MIT (of the package dist)"),
        ("License: MIT\n", None, {"speech_model_license": "mine"}, "mine"),
        ("License: UNKNOWN\n", None, {}, UNSTATED),
        (
            "License: A\n        B\n        C\n",
            None,
            {},
            UNSTATED,
        ),
    ],
)
def test_the_licence_of_the_speech_model(
    tmp_path, monkeypatch, metadata, readme, facts, licence
):
    installed(tmp_path, metadata)
    monkeypatch.syspath_prepend(tmp_path)
    if readme:
        (tmp_path / "whisper/README.md").write_text(readme)
    found = speech_model.card_entries(config_of(), facts)
    assert found["speech_licence"] == licence
    assert found["speech_package"] == "dist" and not found["speech_by_value"]
    by_value = speech_model.card_entries(config_of(weights="value"), facts)
    assert by_value["speech_package"] == "" and by_value["speech_by_value"]
    assert speech_model.card_entries({"frontend": "default"}, facts) == {}
