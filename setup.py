"""Puts the recipes of ``egs2/`` into wheels; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# What running a recipe leaves in its folder, egs2/CORPUS/asr_hkd/.
RUN_BY_RECIPE = {"data", "dump", "exp", "downloads", "local_cache", "path.sh"}
# Links into an ESPnet checkout; a recipe may have files of these names, too.
LINKED_BY_RECIPE = {"scripts", "pyscripts", "steps", "utils", "cmd.sh", "db.sh"}


def left_out(folder: str, names: list[str]) -> set[str]:
    """Names in ``folder`` that are no part of a recipe."""
    out = {n for n in names if n == "__pycache__" or n.startswith(".")}
    if len(Path(folder).relative_to(ROOT / "egs2").parts) == 2:
        links = {n for n in LINKED_BY_RECIPE if Path(folder, n).is_symlink()}
        out |= (RUN_BY_RECIPE | links) & set(names)
    return out


class BuildWithRecipes(build_py):
    """Copies ``egs2`` into the package, following links."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "espnet_cif_hkd" / "egs2"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / "egs2", target, ignore=left_out)


setup(cmdclass={"build_py": BuildWithRecipes})
