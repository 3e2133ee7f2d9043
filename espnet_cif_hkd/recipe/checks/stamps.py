"""Which outputs are whole: markers in the folders that stages write.

A stage puts ``.incomplete-N`` into its output folder before it writes and removes it
at the end, leaving ``.done-N`` with a fingerprint of what it was made from. A folder
with the first is half-written; one with neither was made by ESPnet's own ``asr.sh``
and is taken as it is.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text

# Above this size a file is told by its size and time instead of its content.
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
        for path in map(Path, paths):
            self.words(path)
            if path.is_dir():
                self.files(*sorted(item for item in path.rglob("*") if item.is_file()))
            elif path.is_file():
                status = path.stat()
                if status.st_size <= _HASHED_SIZE:
                    self._hash.update(path.read_bytes())
                else:
                    self.words(status.st_size, status.st_mtime_ns)
        return self

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _marker(folder: Path, stage: int, state: str) -> Path:
    return folder / f".{state}-{stage}"


def begin(folder: Path, stage: int) -> None:
    """Mark ``folder`` as being written by ``stage``."""
    folder.mkdir(parents=True, exist_ok=True)
    _marker(folder, stage, "done").unlink(missing_ok=True)
    _marker(folder, stage, "incomplete").touch()


def finish(folder: Path, stage: int, fingerprint: str) -> None:
    """Mark what ``stage`` wrote into ``folder`` as whole."""
    write_text(
        _marker(folder, stage, "done"), json.dumps({"fingerprint": fingerprint}) + "\n"
    )
    _marker(folder, stage, "incomplete").unlink(missing_ok=True)


def is_done(folder: Path, stage: int, fingerprint: str, needs: Iterable[str]) -> bool:
    """Whether ``stage`` has made ``folder`` from the very same inputs."""
    if _marker(folder, stage, "incomplete").exists():
        return False
    if any(not (folder / name).exists() for name in needs):
        return False
    with suppress(OSError, ValueError, KeyError):
        text = _marker(folder, stage, "done").read_text(encoding="utf-8")
        return bool(json.loads(text)["fingerprint"] == fingerprint)
    return False


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
    # torch writes zip archives, whose directory comes last; old files are pickles.
    path = folder / name
    with path.open("rb") as stream:
        is_archive = stream.read(2) == b"PK"
    if path.stat().st_size == 0 or (is_archive and not zipfile.is_zipfile(path)):
        raise UserError(f"{path} is half-written: run stage {stage} again")
