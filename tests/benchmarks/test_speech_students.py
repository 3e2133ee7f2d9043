"""The commands of the students of speech teachers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import speech_students


@pytest.fixture
def items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[list[str], str | None]]:
    """What the benchmark would run, by name."""
    found: dict[str, Any] = {}
    shutil.copytree(speech_students.RECIPE / "conf", tmp_path / "conf")
    monkeypatch.setattr(speech_students, "RECIPE", tmp_path)
    monkeypatch.setattr(
        speech_students.Queue, "run", lambda _, given: found.update(given)
    )
    monkeypatch.setattr(
        "sys.argv", ["x", "--students", "cif:scratch:1", "cif:random:2"]
    )
    return found


@pytest.mark.parametrize("checkout", ["", "/path/to/espnet"])
def test_what_is_run(
    items: dict[str, tuple[list[str], str | None]],
    monkeypatch: pytest.MonkeyPatch,
    checkout: str,
) -> None:
    """ESPnet's own asr.sh has no ``--reuse``."""
    monkeypatch.setenv("ESPNET_ROOT", checkout)
    speech_students.main()
    assert {name: needed for name, (_, needed) in items.items()} == {
        "pretrain_random": None,
        "cif_scratch_1": None,
        "cif_random_2": "pretrain_random",
    }
    for words, _ in items.values():
        assert ("--reuse" in words) == (not checkout)
