"""``recipe init NAME DIR``: a recipe of this package, laid out to be run."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.log import log

_PACKAGE = Path(__file__).resolve().parent.parent
# Made by running a recipe; not a part of it.
_LEFT_OUT = frozenset(
    {"data", "dump", "exp", "downloads", "__pycache__", ".mypy_cache", "path.sh"}
)
# Links into an ESPnet checkout, made by asr.sh where the recipe has no file of its own.
_LINKED = frozenset({"scripts", "pyscripts", "steps", "utils", "cmd.sh", "db.sh"})


def _left_out(folder: str, names: list[str]) -> set[str]:
    links = {name for name in _LINKED if Path(folder, name).is_symlink()}
    return set(names) & (_LEFT_OUT | links | {"asr.sh"})


def recipes_folder() -> Path:
    """Where the recipes are: inside the installed package, or in a checkout.

    Raises:
        UserError: neither has them.
    """
    for folder in (_PACKAGE / "egs2", _PACKAGE.parent / "egs2"):
        if (folder / "TEMPLATE").is_dir():
            return folder
    raise UserError("this installation has no recipes: install the package again")


def init(arguments: Sequence[str]) -> None:
    """Copy the recipe ``arguments[0]`` into the folder ``arguments[1]``.

    Raises:
        UserError: wrong arguments, an unknown recipe, or a folder that has content.
    """
    source = recipes_folder()
    names = sorted(
        path.parent.parent.name
        for path in source.glob("*/asr_hkd/run.sh")
        if path.parent.parent.name != "TEMPLATE"
    )
    if len(arguments) != 2:
        raise UserError(
            f"usage: recipe init NAME DIR, with NAME of: {', '.join(names)}"
        )
    name, target = arguments[0], Path(arguments[1])
    if name not in names:
        raise UserError(f"there is no recipe {name!r}: choose from {', '.join(names)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty: name another folder")
    shutil.copytree(
        source / name / "asr_hkd",
        target,
        symlinks=False,
        ignore=_left_out,
        dirs_exist_ok=True,
    )
    # A recipe in the repository links to the one asr.sh; here it gets its own copy.
    shutil.copyfile(source / "TEMPLATE" / "asr_hkd" / "asr.sh", target / "asr.sh")
    for script in (*target.glob("*.sh"), *target.glob("local/*.sh")):
        script.chmod(0o755)
    log(f"recipe {name} is in {target}: cd {target} && ./run.sh")
