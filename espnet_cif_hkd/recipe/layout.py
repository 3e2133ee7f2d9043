"""``recipe init NAME DIR``: copy a recipe of this package into a new folder."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log

_PACKAGE = Path(__file__).resolve().parent.parent
# Files and folders that a run of a recipe makes.
_MADE = frozenset(
    {"data", "dump", "exp", "downloads", "local_cache", "logs", "path.sh"}
)


def recipes_folder() -> Path:
    """Return the folder ``egs2``: in the installed package, or in a checkout.

    ``egs3``, the recipes for ESPnet 3, is beside it.

    Raises:
        UserError: the installation has no recipes.
    """
    for folder in (_PACKAGE / "egs2", _PACKAGE.parent / "egs2"):
        if (folder / "TEMPLATE").is_dir():
            return folder
    raise UserError("this installation has no recipes: install the package again")


def _files(recipe: Path) -> Iterator[Path]:
    """Yield the files of a recipe, relative to it, without results of a run."""
    home = recipe.parent.parent.parent.resolve()

    def ours(path: Path) -> bool:
        # Recipes link to TEMPLATE, and those of egs3 to egs2. asr.sh adds links into an
        # ESPnet checkout. Nor our results: those of a user come into exp/.
        there = path.resolve()
        return not path.name.startswith((".", "RESULTS", "__pycache__")) and any(
            there.is_relative_to(home / shelf) for shelf in ("egs2", "egs3")
        )

    for folder, folders, names in os.walk(recipe, followlinks=True):
        made = _MADE if Path(folder) == recipe else frozenset()
        folders[:] = sorted(n for n in set(folders) - made if ours(Path(folder, n)))
        for name in sorted(set(names) - made):
            if ours(Path(folder, name)):
                yield Path(folder, name).relative_to(recipe)


def _write(source: Path, target: Path) -> None:
    """Copy a file with the modes of a new file; executable if it is a script."""
    content = source.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    if content.startswith(b"#!"):
        mode = target.stat().st_mode
        target.chmod(mode | (mode & 0o444) >> 2)


def _copy(name: str, recipe: Path, target: Path) -> None:
    # If this file exists, an earlier init was interrupted.
    marker = target / f".init-{name.replace('/', '-')}"
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: name another folder")
    if target.exists() and not marker.exists() and any(target.iterdir()):
        raise UserError(f"{target} exists and is not empty: name another folder")
    files = list(_files(recipe))
    for file in files:
        there = target / file
        if there.exists() and not (recipe / file).read_bytes().startswith(
            there.read_bytes()
        ):
            raise UserError(
                f"{there} has been changed since an interrupted recipe init: move it "
                "away, or name another folder"
            )
    target.mkdir(parents=True, exist_ok=True)
    marker.touch()
    for file in files:
        _write(recipe / file, target / file)
    marker.unlink()


def init(arguments: Sequence[str]) -> None:
    """Copy the recipe ``arguments[0]`` into the folder ``arguments[1]``.

    Recipes for ESPnet 3 are named ``egs3/NAME``.

    Files get the modes of the user's umask, not those of the installation. The same
    command completes an interrupted copy.

    Raises:
        UserError: wrong arguments, an unknown recipe, or a folder that is not empty or
            not writable.
    """
    egs2 = recipes_folder()
    recipes = {
        path.parents[1].name.lower(): path.parent
        for path in egs2.glob("*/asr_hkd/run.sh")
    }
    espnet3 = {
        f"egs3/{path.parents[1].name}": path.parent
        for path in egs2.parent.glob("egs3/*/esp2_asr/run.py")
    }
    names = ", ".join([*sorted(recipes), *sorted(espnet3)])
    recipes |= espnet3
    if len(arguments) != 2:
        raise UserError(f"usage: recipe init NAME DIR, with NAME of: {names}")
    name, target = arguments[0], Path(arguments[1])
    if name not in recipes:
        raise UserError(f"there is no recipe {name!r}: choose from {names}")
    try:
        _copy(name, recipes[name], target)
    except OSError as error:
        raise UserError(
            f"{error.filename or target}: {error.strerror}: recipe init needs a folder "
            "that you can write to; the same command completes an interrupted copy"
        ) from error
    if name == "template":
        following = "fill in local/data.sh, then ./run.sh"
    elif name.startswith("egs3/"):
        following = "then the commands of README.md (ESPnet 202611)"
    else:
        following = "then ./run.sh"
    log(f"recipe {name} is in {target}: cd {target}, {following}")
