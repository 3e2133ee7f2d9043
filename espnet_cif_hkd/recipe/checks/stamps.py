"""Markers of complete outputs, in the folders that stages write.

A stage makes ``.incomplete-N`` in its output folder before it writes. At the end it
removes this marker and writes ``.done-N`` with a fingerprint of its inputs. A folder
with ``.incomplete-N`` is incomplete; a folder without markers comes from ESPnet's
``asr.sh`` and is accepted.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.torch_file import is_complete

# What damages the output of a stage does not change its fingerprint.
AGAIN = "again without --reuse true"
# For larger files size and time are used instead of the content.
_HASHED_SIZE = 32 * 1024 * 1024


class Fingerprint:
    """A hash of words and files in the order in which they are added."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def words(self, *words: object) -> "Fingerprint":
        for word in words:
            self._hash.update(f"{word}\0".encode())
        return self

    def files(self, *paths: str | Path) -> "Fingerprint":
        """Add names and contents of files, or of all files in a folder."""
        for path in map(Path, paths):
            if os.path.isdir(path):
                self.words(path).files(*_inside(path))
                continue
            status = path.stat() if os.path.isfile(path) else None
            self.words(path, status and status.st_size)
            if status and status.st_size <= _HASHED_SIZE:
                self._hash.update(path.read_bytes())
            elif status:
                self.words(status.st_mtime_ns)
        return self

    def states(self, *paths: str | Path) -> "Fingerprint":
        """Add names, sizes and times of files, or of all files in a folder."""
        for path in map(Path, paths):
            for file in _inside(path) if os.path.isdir(path) else [path]:
                status = file.stat() if os.path.isfile(file) else None
                self.words(file, status and (status.st_size, status.st_mtime_ns))
        return self

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _inside(folder: Path) -> list[Path]:
    """Return the files in a folder without hidden files and caches."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if n[0] != "." and n != "__pycache__"]
        found += [Path(place, name) for name in names if name[0] != "."]
    return sorted(found)


def _marker(folder: Path, stage: int, state: str) -> Path:
    return folder / f".{state}-{stage}"


def begin(folder: Path, stage: int, data: str = "") -> None:
    """Mark ``folder`` as incomplete; record the fingerprint of the training data."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(_marker(folder, stage, "incomplete"), json.dumps({"data": data}) + "\n")
    _marker(folder, stage, "done").unlink(missing_ok=True)


def finish(folder: Path, stage: int, fingerprint: str, data: str = "") -> None:
    """Mark the output of ``stage`` in ``folder`` as complete."""
    content = {"fingerprint": fingerprint, "data": data}
    write_text(_marker(folder, stage, "done"), json.dumps(content) + "\n")
    _marker(folder, stage, "incomplete").unlink(missing_ok=True)


def recorded(folder: Path, stage: int, name: str) -> str:
    """Return the recorded ``fingerprint`` or ``data`` of a folder; empty if unknown."""
    for state in ("incomplete", "done"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            text = _marker(folder, stage, state).read_text(encoding="utf-8")
            return str(json.loads(text)[name])
    return ""


def is_done(folder: Path, stage: int, fingerprint: str, needs: Iterable[str]) -> bool:
    """Whether ``stage`` made ``folder`` from inputs with this fingerprint."""
    if _marker(folder, stage, "incomplete").exists():
        return False
    if not all(_has_content(folder / name) for name in needs):
        return False
    return recorded(folder, stage, "fingerprint") == fingerprint


def _has_content(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.stat().st_size > 0)


def require_same_data(folder: Path, stage: int, data: str, tag: str) -> None:
    """Check that the data of a training to resume have not changed.

    Raises:
        UserError: the data have changed.
    """
    old = recorded(folder, stage, "data")
    if old and old != data and any(folder.glob("*.pth")):
        raise UserError(
            f"the training data have changed since the model in {folder} was trained, "
            f"and a training would continue from it: train under another --{tag}, "
            f"or remove {folder}"
        )


def require(folder: Path, stage: int, needs: Iterable[str]) -> None:
    """Check that ``stage`` has made ``folder`` and completed it.

    Raises:
        UserError: a file is missing or incomplete; the message has the stage to run.
    """
    if _marker(folder, stage, "incomplete").exists():
        raise UserError(
            f"{folder} is half-written, stage {stage} was interrupted: "
            f"run stage {stage} again"
        )
    for name in needs:
        path = folder / name
        if not path.exists():
            raise UserError(f"{path} is missing: run stage {stage} first")
        if not _has_content(path):
            raise UserError(f"{path} is empty: run stage {stage} again")


def require_model(folder: Path, stage: int, name: str) -> None:
    """Check that ``stage`` has written a checkpoint completely.

    Complete checkpoints of an interrupted training are accepted.

    Raises:
        UserError: the file is missing or incomplete; the message has the stage to run.
    """
    for path in (folder / "config.yaml", folder / name):
        if not path.is_file():
            raise UserError(f"{path} is missing: run stage {stage} first")
    if not is_complete(folder / name):
        raise UserError(f"{folder / name} is half-written: run stage {stage} {AGAIN}")
