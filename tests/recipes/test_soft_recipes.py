"""Recipes with soft labels on miniatures: language models, labels, training, scores."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from stock_cases import aishell, hsk, librispeech, run_stages, soft, with_levels

EXP = Path("exp/asr_tiny")
CASES = {
    "fotaq": lambda folder: soft(folder, curves=False),
    "hsk": lambda folder: with_levels(hsk, folder),
    "aishell": lambda folder: with_levels(aishell, folder),
    "librispeech": lambda folder: with_levels(librispeech, folder),
}
# Where the files of the levels are, and the level of the recogniser's tokens.
PLACES = {
    "fotaq": ("", "char"),
    "hsk": ("", "char"),
    "aishell": ("", "char"),
    "librispeech": ("100h/", "token"),
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=list(CASES))
def finished(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    forked_python: str,
) -> tuple[Path, str, list[str]]:
    """The folder of a recipe after stages 1 to 13, its corpus and its options."""
    folder = tmp_path_factory.mktemp(request.param) / "recipe"
    options = CASES[request.param](folder)
    run_stages(folder, options, False, 1, 13, forked_python)
    return folder, request.param, options


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_every_step_leaves_its_files(finished: tuple[Path, str, list[str]]) -> None:
    folder, corpus, _ = finished
    part, own = PLACES[corpus]
    exp = folder / "exp" / part
    levels = exp / "lm_levels"
    lexicon = (levels / "lexicon/lexicon.txt").read_text().splitlines()
    phones = (levels / "lexicon/tokens.txt").read_text().splitlines()
    assert {one for line in lexicon for one in line.split()[1:]} == set(phones[2:-1])
    assert read(levels / "phone/config.yaml")["token_list"] == phones
    trained = read(exp / "asr_tiny/config.yaml")
    assert read(levels / own / "config.yaml")["token_list"] == trained["token_list"]
    for level in ("phone", own):
        store = folder / "dump" / part / "lm_labels" / level
        train, valid = json.loads((store / "quality.json").read_text()).values()
        assert 1 < train["perplexity"] < train["unigram"]
        assert train["n_units"] > 20 and valid["n_units"] > 5
    results = (exp / "asr_tiny/RESULTS.md").read_text()
    assert "|decoded" in results


def test_both_levels_learn(finished: tuple[Path, str, list[str]]) -> None:
    folder, corpus, _ = finished
    part, own = PLACES[corpus]
    log = (folder / "exp" / part / "asr_tiny/train.log").read_text()
    assert "loss_phone_soft=" in log and f"loss_{own}_soft=" in log
    assert ("loss_output=" in log) == (corpus == "fotaq")


# One recipe is enough for these two: all prepare their levels by one command.
@pytest.mark.parametrize("finished", ["fotaq"], indirect=True)
def test_a_second_run_makes_nothing_again(
    finished: tuple[Path, str, list[str]], forked_python: str
) -> None:
    folder, corpus, options = finished
    part, own = PLACES[corpus]
    model = folder / "exp" / part / "asr_tiny/checkpoint.pth"
    before = model.stat().st_mtime_ns
    folder.with_suffix(".log").unlink()
    run_stages(folder, [*options, "--reuse", "true"], False, 1, 13, forked_python)
    printed = folder.with_suffix(".log").read_text()
    levels = f"exp/{part}lm_levels"
    assert f"{levels}/lexicon: up to date" in printed
    for level in ("phone", own):
        assert f"{levels}/{level}: the language model is up to date" in printed
    assert "stage 11 (training): up to date, reused" in printed
    assert model.stat().st_mtime_ns == before


@pytest.mark.parametrize("finished", ["fotaq"], indirect=True)
def test_decoding_needs_no_file_of_a_level(
    finished: tuple[Path, str, list[str]], tmp_path: Path, forked_python: str
) -> None:
    folder, _, options = finished
    other = tmp_path / "recipe"
    shutil.copytree(folder, other, symlinks=True)
    shutil.rmtree(other / "exp/lm_levels")
    shutil.rmtree(other / "dump/lm_labels")
    texts = [*(other / EXP).glob("decoded/*/text")]
    assert texts
    kept = {path: path.read_text() for path in texts}
    shutil.rmtree(other / EXP / "decoded")
    run_stages(other, options, False, 12, 13, forked_python)
    assert kept == {path: path.read_text() for path in texts}
