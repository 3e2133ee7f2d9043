"""A tiny recipe after stage 1, for tests of the stages that follow."""

from pathlib import Path

import pytest
import tiny_recipe

from espnet_cif_hkd.recipe import options, paths, plan
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages import data


def make_run(**changed: str) -> Run:
    words = tiny_recipe.options(**changed)
    parsed = options.parse(words)
    return Run(parsed, paths.derive(parsed), words, plan.selected(parsed))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny recipe after stage 1, in the working directory."""
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    data.prepare(make_run())
    return tmp_path
