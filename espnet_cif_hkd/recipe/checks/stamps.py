"""Which outputs are complete: markers in the folders that stages write.

A stage puts ``.incomplete-N`` into its output folder before it writes and removes it
at the end, leaving ``.done-N`` with a fingerprint of its inputs. A folder with the
first is half-written; one with neither was made by ESPnet's own ``asr.sh`` and is
accepted.
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

# Of a larger file the size and the time count instead of the content.
_HASHED_SIZE = 32 * 1024 * 1024


class Fingerprint:
    """A hash over words and files; the order of additions counts."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def words(self, *words: object) -> "Fingerprint":
        for word in words:
            self._hash.update(f"{word}\0".encode())
        return self

    def files(self, *paths: str | Path) -> "Fingerprint":
        """Add names and contents; of a folder, those of all files in it."""
        for path in map(Path, paths):
            if path.is_dir():
                self.words(path).files(*_inside(path))
                continue
            status = path.stat() if path.is_file() else None
            self.words(path, status and status.st_size)
            if status and status.st_size <= _HASHED_SIZE:
                self._hash.update(path.read_bytes())
            elif status:
                self.words(status.st_mtime_ns)
        return self

    def states(self, *paths: str | Path) -> "Fingerprint":
        """Add names, sizes and times; of a folder, those of all files in it."""
        for path in map(Path, paths):
            for file in _inside(path) if path.is_dir() else [path]:
                status = file.stat() if file.is_file() else None
                self.words(file, status and (status.st_size, status.st_mtime_ns))
        return self

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _inside(folder: Path) -> list[Path]:
    """The files in a folder, without hidden ones and what programs cache there."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if n[0] != "." and n != "__pycache__"]
        found += [Path(place, name) for name in names if name[0] != "."]
    return sorted(found)


def _marker(folder: Path, stage: int, state: str) -> Path:
    return folder / f".{state}-{stage}"


def begin(folder: Path, stage: int, data: str = "") -> None:
    """Mark ``folder`` as being written by ``stage``, from data of a fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(_marker(folder, stage, "incomplete"), json.dumps({"data": data}) + "\n")
    _marker(folder, stage, "done").unlink(missing_ok=True)


def finish(folder: Path, stage: int, fingerprint: str, data: str = "") -> None:
    """Mark what ``stage`` wrote into ``folder`` as complete."""
    content = {"fingerprint": fingerprint, "data": data}
    write_text(_marker(folder, stage, "done"), json.dumps(content) + "\n")
    _marker(folder, stage, "incomplete").unlink(missing_ok=True)


def recorded(folder: Path, stage: int, name: str) -> str:
    """``fingerprint`` or ``data`` of what is in ``folder``; empty if unknown."""
    for state in ("incomplete", "done"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            text = _marker(folder, stage, state).read_text(encoding="utf-8")
            return str(json.loads(text)[name])
    return ""


def is_done(folder: Path, stage: int, fingerprint: str, needs: Iterable[str]) -> bool:
    """Whether ``stage`` has made ``folder`` from inputs with this fingerprint."""
    if _marker(folder, stage, "incomplete").exists():
        return False
    if any(not (folder / name).exists() for name in needs):
        return False
    return recorded(folder, stage, "fingerprint") == fingerprint


def require_same_data(folder: Path, stage: int, data: str, tag: str) -> None:
    """Refuse to go on with a training whose data have changed.

    Raises:
        UserError: naming the folder and what to do.
    """
    old = recorded(folder, stage, "data")
    if old and old != data and any(folder.glob("*.pth")):
        raise UserError(
            f"the training data have changed since the model in {folder} was trained, "
            f"and a training would go on from there: train under another --{tag}, "
            f"or remove {folder}"
        )


def require(folder: Path, stage: int, needs: Iterable[str]) -> None:
    """Refuse a folder that ``stage`` has not made or has left half-written.

    Raises:
        UserError: naming the file and the stage to run.
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
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{path} is empty: run stage {stage} again")


def require_model(folder: Path, stage: int, name: str) -> None:
    """Refuse a checkpoint that ``stage`` has not written, or not to its end.

    An interrupted training is no obstacle: its finished checkpoints can be used.

    Raises:
        UserError: naming the file and the stage to run.
    """
    for path in (folder / "config.yaml", folder / name):
        if not path.is_file():
            raise UserError(f"{path} is missing: run stage {stage} first")
    if not is_complete(folder / name):
        raise UserError(f"{folder / name} is half-written: run stage {stage} again")
