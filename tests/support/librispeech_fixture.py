"""LibriSpeech's recipe in a folder: its modules, and what its scripts pass on."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

RECIPE = Path(__file__).parents[2] / "egs2" / "librispeech" / "asr_hkd"
LOCAL = RECIPE / "local"


def load(name: str) -> ModuleType:
    """Import a module of the recipe's ``local/``."""
    if str(LOCAL) not in sys.path:
        sys.path.insert(0, str(LOCAL))
    return importlib.import_module(name)


def words_of(
    folder: Path,
    script: str,
    *arguments: str,
    recipe: Path = RECIPE,
    **environment: str,
) -> list[str]:
    """What a script of the recipe would start: the arguments of its last Python.

    Args:
        folder: where to keep what was recorded.
        script: run.sh or local/data.sh.
        arguments: its own.
        recipe: where the recipe is.
        environment: more of it.

    Raises:
        AssertionError: the script failed.
    """
    recorder = folder / "recorder"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$RECORD"\n')
    recorder.chmod(0o755)
    record = folder / "record"
    done = shell(
        script,
        *arguments,
        recipe=recipe,
        **{"PYTHON": str(recorder), "RECORD": str(record), **environment},
    )
    assert done.returncode == 0, done.stderr
    return record.read_text().splitlines()


def shell(
    script: str, *arguments: str, recipe: Path = RECIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of the recipe in the present folder."""
    inherited = {k: v for k, v in os.environ.items() if k != "LIBRISPEECH"}
    return subprocess.run(
        [str(recipe / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, "PYTHON": "false", **environment},
    )
