"""local/data.sh runs the engine's own Python, not another one in PATH."""

import sys
from pathlib import Path

import pytest

from espnet_cif_hkd.recipe.stages.data import run_local_data


@pytest.mark.parametrize("given", [None, "/another/python"])
def test_local_data_gets_the_interpreter(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHON", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHON", given)
    (tmp_path / "local").mkdir()
    (tmp_path / "local/data.sh").write_text('echo "${PYTHON}" > python\n')
    run_local_data("")
    assert Path("python").read_text().strip() == (given or sys.executable)
