"""Puts the recipes of ``egs2/`` into wheels; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
RECIPES = ROOT / "egs2"
# What running a recipe makes in its folder, egs2/CORPUS/asr_hkd/.
MADE = {"data", "dump", "exp", "downloads", "local_cache", "path.sh"}


def left_out(folder: str, names: list[str]) -> set[str]:
    """Names in ``folder`` that are not part of a recipe."""
    out = {n for n in names if n == "__pycache__" or n.startswith(".")}
    if len(Path(folder).relative_to(RECIPES).parts) == 2:
        # Recipes link to TEMPLATE. asr.sh adds links into an ESPnet checkout.
        results = {n for n in names if n.startswith("RESULTS")}  # ours; quotes a game
        outside = {n for n in names if RECIPES not in Path(folder, n).resolve().parents}
        out |= (MADE | outside | results) & set(names)
    return out


class BuildWithRecipes(build_py):
    """Copies ``egs2`` into the package, following links."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "espnet_cif_hkd" / "egs2"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(RECIPES, target, ignore=left_out)


setup(cmdclass={"build_py": BuildWithRecipes})
