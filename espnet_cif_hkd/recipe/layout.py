"""``recipe init NAME DIR``: a recipe of this package, laid out to be run."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log

_PACKAGE = Path(__file__).resolve().parent.parent
# Made by running a recipe, in its own folder; not a part of it.
_RUN = frozenset({"data", "dump", "exp", "downloads", "path.sh"})
_CACHES = frozenset({"__pycache__", ".mypy_cache"})
# Links into an ESPnet checkout, made by asr.sh where the recipe has no file of its own.
_LINKED = frozenset({"scripts", "pyscripts", "steps", "utils", "cmd.sh", "db.sh"})


def _left_out(recipe: Path) -> Callable[[str, list[str]], set[str]]:
    """What ``shutil.copytree`` shall leave out of ``recipe``."""

    def ignore(folder: str, names: list[str]) -> set[str]:
        if Path(folder) != recipe:
            return set(names) & _CACHES
        links = {name for name in _LINKED if Path(folder, name).is_symlink()}
        return set(names) & (_CACHES | _RUN | links | {"asr.sh"})

    return ignore


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
    recipe = source / name / "asr_hkd"
    shutil.copytree(
        recipe,
        target,
        symlinks=False,
        ignore=_left_out(recipe),
        dirs_exist_ok=True,
    )
    # A recipe in the repository links to the one asr.sh; here it gets its own copy.
    shutil.copyfile(source / "TEMPLATE" / "asr_hkd" / "asr.sh", target / "asr.sh")
    for script in (*target.glob("*.sh"), *target.glob("local/*.sh")):
        script.chmod(0o755)
    log(f"recipe {name} is in {target}: cd {target} && ./run.sh")
