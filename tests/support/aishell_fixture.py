"""The AISHELL-1 recipe in a folder, and what its run.sh passes on."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

RECIPE = Path(__file__).parents[2] / "egs2" / "aishell" / "asr_hkd"


def load(name: str) -> ModuleType:
    """Import a module of the recipe's ``local/``."""
    local = str(RECIPE / "local")
    if local not in sys.path:
        sys.path.insert(0, local)
    return importlib.import_module(name)


def lay_out(folder: Path) -> Path:
    """Copy the recipe to ``folder``, its link resolved."""
    made = shutil.ignore_patterns("data", "dump", "exp", "downloads", "__pycache__")
    shutil.copytree(RECIPE, folder, ignore=made, dirs_exist_ok=True)
    return folder


def options_of_run_sh(folder: Path, *arguments: str) -> list[str]:
    """What ``run.sh`` passes to ``asr.sh``, printed by a stand-in for the latter."""
    stand_in = folder / "asr.sh"
    kept = stand_in.read_bytes()
    stand_in.write_text("#!/usr/bin/env bash\nprintf '%s\\0' \"$@\"\n")
    try:
        done = subprocess.run(
            ["bash", str(folder / "run.sh"), *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        stand_in.write_bytes(kept)
    return done.stdout.split("\0")[:-1]
