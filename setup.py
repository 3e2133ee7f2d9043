"""Puts the recipes of ``egs2`` and ``egs3`` into wheels."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHELVES = ("egs2", "egs3")
# What running a recipe makes in its folder, such as egs2/CORPUS/asr_hkd/.
MADE = {"data", "dump", "exp", "downloads", "local_cache", "logs", "path.sh"}


def left_out(folder: str, names: list[str]) -> set[str]:
    """Names in ``folder`` that are not part of a recipe."""
    out = {n for n in names if n == "__pycache__" or n.startswith(".")}
    if len(Path(folder).relative_to(ROOT).parts) == 3:
        # Recipes link to TEMPLATE, and those of egs3 to egs2. asr.sh adds links into an
        # ESPnet checkout.
        results = {n for n in names if n.startswith("RESULTS")}  # ours; quotes a game
        inside = {
            n
            for n in names
            if any(
                Path(folder, n).resolve().is_relative_to(ROOT / one) for one in SHELVES
            )
        }
        out |= (MADE | results) & set(names) | set(names) - inside
    return out


class BuildWithRecipes(build_py):
    """Copies recipes into the package, following links."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for shelf in SHELVES:
                target = Path(self.build_lib) / "espnet_cif_hkd" / shelf
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(ROOT / shelf, target, ignore=left_out)


setup(cmdclass={"build_py": BuildWithRecipes})
