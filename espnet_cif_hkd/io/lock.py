"""One process at a time, by a lock on a file."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from espnet_cif_hkd.errors import UserError

Tell = Callable[[str], object]


@contextmanager
def locked(
    path: Path,
    tell: Tell,
    refusal: str | None = None,
    unwritable: Callable[[OSError], UserError] | None = None,
) -> Iterator[IO[bytes]]:
    """Open ``path`` to append, and lock it until the end.

    Whoever has the lock may rename or remove the file: what another process then gets
    is a new one. Where a file system has no locks, a line says so and nothing is
    locked.

    Args:
        path: the file, made with its folder if it is not there.
        tell: prints or logs a line, when it must wait for instance.
        refusal: what to say if another process has the lock; None waits for it.
        unwritable: what to raise if the file cannot be written; None names ``path``.

    Yields:
        The stream; flush it, an error of closing it is not told.

    Raises:
        UserError: ``refusal``, or the file cannot be written.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("ab")
        except OSError as error:
            if unwritable is not None:
                raise unwritable(error) from error
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
        try:
            _lock(stream, path, tell, refusal)
            if _is_at(stream, path):
                yield stream
                return
        finally:
            # What could not be written has been told when it was flushed.
            with suppress(OSError):
                stream.close()


@contextmanager
def alone(path: Path, tell: Tell) -> Iterator[None]:
    """Hold a lock by a file at ``path`` that exists only as long as it is needed.

    Args:
        path, tell: see :func:`locked`.

    Raises:
        UserError: the file cannot be written.
    """
    with locked(path, tell):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(stream: IO[bytes], path: Path, tell: Tell, refusal: str | None) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if refusal is not None:
            raise UserError(refusal) from error
        tell(f"waiting for another process, which has locked {path}")
        fcntl.flock(stream, fcntl.LOCK_EX)
    except OSError:
        tell(f"{path} cannot be locked here: do not run this twice at once")


def _is_at(stream: IO[bytes], path: Path) -> bool:
    """Whether ``path`` still is the file that was opened."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
