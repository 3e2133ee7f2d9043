"""Which recordings a command works on: files, folders, patterns, ``wav.scp``."""

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.writers.speech import key
from espnet_cif_hkd.io.tables import read_table

# Suffixes of the files that are taken from folders; libsndfile reads them all.
AUDIO_SUFFIXES = frozenset(
    (
        *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc"),
        *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist"),
    )
)


@dataclass(frozen=True)
class Recording:
    """An audio file.

    Attributes:
        name: Names its results: the file's name without suffix; for a file of a folder
            with the path below the folder; for ``wav.scp`` the key.
        path: The file.
    """

    name: str
    path: Path


def recordings(inputs: Iterable[str]) -> list[Recording]:
    """Return the recordings that the arguments of a command name.

    Args:
        inputs: Audio files; folders, searched with all folders below; patterns with
            ``*`` and ``**``; tables ``*.scp`` of names and files. A file that does not
            exist is returned, too: whoever opens it reports it.

    Returns:
        Recordings with different names, in order.

    Raises:
        UserError: Two recordings have the same name, or a folder, a pattern or a table
            has none.
    """
    found: dict[str, Recording] = {}
    for one in (recording for given in inputs for recording in _expanded(given)):
        other = found.setdefault(key(one.name), one)
        if other.path.resolve() != one.path.resolve():
            raise UserError(
                f"{other.path} and {one.path} would both be written as {one.name!r}: "
                "rename one, run the command once for each with another -o, or name "
                "the folder that contains both"
            )
    return list(found.values())


def _expanded(given: str) -> Iterator[Recording]:
    path = Path(given)
    if path.is_dir():
        below = sorted(
            one
            for one in path.rglob("*")
            if one.suffix.lower() in AUDIO_SUFFIXES
            and one.is_file()
            and not any(part.startswith(".") for part in one.relative_to(path).parts)
        )
        if not below:
            raise UserError(f"{given}: no audio files in this folder")
        for one in below:
            yield Recording(one.relative_to(path).with_suffix("").as_posix(), one)
    elif path.suffix == ".scp":
        yield from _listed(path)
    elif glob.has_magic(given) and not path.exists():
        files = sorted(name for name in glob.glob(given, recursive=True))
        files = [name for name in files if Path(name).is_file()]
        if not files:
            raise UserError(f"{given}: no file fits this pattern")
        yield from (Recording(Path(name).stem, Path(name)) for name in files)
    else:
        yield Recording(path.stem, path)


def _listed(table: Path) -> Iterator[Recording]:
    entries = read_table(table)
    if not entries:
        raise UserError(f"{table}: no recordings in it")
    for name, entry in entries.items():
        if entry.endswith("|"):
            raise UserError(
                f"{table}, line {entries.lines[name]}: {name} is a command: write the "
                "audio to a file first, as stage 3 of a recipe does"
            )
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(
                f"{table}, line {entries.lines[name]}: {name} is no name of a file: "
                "leave out '..' and a leading '/'"
            )
        yield Recording(name, Path(entry))
