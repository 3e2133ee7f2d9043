"""Atomic writes: a file has either its old or its complete new content."""

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from espnet_cif_hkd.io.processes import is_running


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield the name of a temporary file that is renamed to ``path`` at the end.

    The temporary file is ``.NAME.HOST.PID.part`` in the same folder, with the suffix
    of ``path``: some programs choose the format by it. It is synced to the disk before
    it gets its name. If the block fails, ``path`` keeps its old content. The next call
    for the same file on the same host removes files of killed processes.

    Args:
        path: the file; its folder is made if necessary.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f".{path.name}.{os.uname().nodename}."
    _remove_leftovers(path.parent / start)
    part = path.with_name(f"{start}{os.getpid()}.part{path.suffix}")
    try:
        yield part
        _sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    with suppress(OSError):  # not every file system can sync a folder
        _sync(path.parent)


@contextmanager
def writer(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that is renamed to ``path`` at the end; see above.

    Args:
        path: the file; its folder is made if necessary.
        mode: ``w`` for text in UTF-8, ``wb`` for bytes.

    Raises:
        OSError: the file cannot be written.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with (
        replacing(path) as part,
        part.open(mode, **text) as stream,  # type: ignore[call-overload]
    ):
        yield stream


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``, to be renamed to it when it is complete.

    What is still there at the end is removed.
    """
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{path.name}.") as name:
        made = Path(name, path.name)
        made.mkdir()
        yield made


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8; see :func:`writer`."""
    with writer(path) as stream:
        stream.write(text)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content``; see :func:`writer`."""
    with writer(path, "wb") as stream:
        stream.write(content)


def _remove_leftovers(start: Path) -> None:
    for name in glob.glob(f"{glob.escape(str(start))}*.part*"):
        pid = name.removeprefix(str(start)).split(".")[0]
        if pid.isdigit() and not is_running(int(pid)):
            Path(name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
