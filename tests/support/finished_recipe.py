"""A tiny recipe that has been run completely, and what tests do with copies of it."""

import importlib.metadata
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_recipe
from made_once import made_once

from espnet_cif_hkd.recipe.cli import main

ROOT = Path(__file__).resolve().parents[2]
# This release of ESPnet decodes several utterances at once.
BATCHES = int(importlib.metadata.version("espnet")) >= 202611
ASR_EXP = Path("exp/asr_asr_raw_en_char")
INFERENCE = ASR_EXP / ("decode_lm_lm_lm_en_char_valid.loss.ave_asr_model_valid.acc.ave")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe after stages 1 to 14 with a language model and a too short clip.

    All test modules and processes share it; it is not to be changed by tests.
    """
    return made_once(tmp_path_factory, "finished_recipe", _finish)


def _finish(folder: Path) -> Path:
    tiny_recipe.make(folder)
    blip = folder / "sound/test/spk0-test0.wav"
    soundfile.write(blip, np.full(200, 0.1), tiny_recipe.RATE)
    before = Path.cwd()
    os.chdir(folder)
    try:
        code = main(tiny_recipe.options(use_lm="true", lang="en", skip_packing="false"))
    finally:
        os.chdir(before)
    assert code == 0
    return folder


@pytest.fixture
def recipe(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished recipe to be damaged."""
    target = tmp_path / "copy"
    # The tables name the sound files by absolute path, in the original.
    shutil.copytree(finished, target)
    monkeypatch.chdir(target)
    return target


def run(**changed: str) -> int:
    return main(tiny_recipe.options(lang="en", **changed))


def refusal(capfd: pytest.CaptureFixture[str], **changed: str) -> str:
    """The error line of a run that must be refused with status 1."""
    capfd.readouterr()
    assert run(**changed) == 1
    lines = [
        line
        for line in capfd.readouterr().err.splitlines()
        if line.startswith("error: ")
    ]
    assert len(lines) == 1
    return lines[0]
