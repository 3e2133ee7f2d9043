"""A complete recipe with ``text_only``: training and decoding, by our engine."""

import shutil
from pathlib import Path

import pytest
import yaml
from tiny_recipe import CIF_CONFIG, make, options

from espnet_cif_hkd.recipe.cli import main

pytestmark = pytest.mark.slow
EXP = Path("exp/asr_tiny")


def run(*more: str, **changed: str) -> int:
    words = options(lang="en", asr_config="conf/text.yaml", asr_tag="tiny", **changed)
    return main([*words, *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After stages 1 to 13; the text has a sentence with an unknown letter."""
    folder = make(tmp_path_factory.mktemp("text_only") / "recipe")
    (folder / "extra").write_text("s1 ab ba\ns2 \ns3 abc\ns4 bab a\n")
    config = yaml.safe_load(CIF_CONFIG)
    criterion = {"type": "text_only", "text": "extra", "batch_size": 2}
    config["model_conf"]["criteria"] = {"text": criterion}
    (folder / "conf/text.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run() == 0
    return folder


def test_the_text_is_counted_and_learnt(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    log = (EXP / "train.log").read_text()
    assert "extra: 2 sentences, 10 tokens; left out: 1 empty, 1 with <unk>" in log
    (results,) = [line for line in log.splitlines() if "1epoch results: " in line]
    train, valid = results.split("[valid]")
    assert "text.loss_text=" in train and "text.loss_map=" in train
    assert "text.loss_text=" not in valid and "text.loss_map=" in valid


def test_decoding_needs_no_text(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy"
    shutil.copytree(finished, target)
    monkeypatch.chdir(target)
    (target / "extra").unlink()
    (decoded,) = EXP.glob("decode*/test/text")
    expected = decoded.read_text()
    shutil.rmtree(decoded.parents[1])
    assert run(stage="12", stop_stage="13") == 0
    assert decoded.read_text() == expected


def test_a_training_is_reused_only_with_its_text(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "copy"
    shutil.copytree(finished, target)
    monkeypatch.chdir(target)
    assert run(stage="11", stop_stage="11", reuse="true") == 0
    assert "stage 11 (training): up to date, reused" in capfd.readouterr().out
    (target / "extra").unlink()
    assert run(stage="11", stop_stage="11", reuse="true") == 1
    error = capfd.readouterr().err
    assert "criteria.text" in error and "extra is missing" in error
