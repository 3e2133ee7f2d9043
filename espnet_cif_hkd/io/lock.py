"""One process at a time, by filelock."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from espnet_cif_hkd.errors import UserError

Report = Callable[[str], object]

# A file system without locks, e.g. Lustre or NFS by their mount options.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def alone(
    path: Path,
    report: Report,
    refusal: str | None = None,
    unwritable: Callable[[OSError], UserError] | None = None,
) -> Iterator[None]:
    """Hold the lock file ``path``, which exists only as long as somebody holds it.

    The system frees the lock of a killed process. Where a file system has no locks, a
    line says so and nothing is locked.

    Args:
        path: the lock file; its folder is made.
        report: prints or logs a line, e.g. that this process waits.
        refusal: what to say if another process holds the lock; None waits for it.
        unwritable: what to raise if the file cannot be written; None names ``path``.

    Raises:
        UserError: ``refusal``, or the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if refusal is not None:
                raise UserError(refusal) from error
            report(f"waiting for another process, which has locked {path}")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        code = error.errno if isinstance(error, OSError) else errno.ENOSYS
        if code in _NO_LOCKS:
            report(f"{path} cannot be locked here: do not run this twice at once")
        elif unwritable is not None and isinstance(error, OSError):
            raise unwritable(error) from error
        else:
            raise UserError(f"{path} cannot be written: {error}") from error
    try:
        yield
    finally:
        # While it is held: who waits for a file that has gone takes a new one.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def locked(
    path: Path, report: Report, refusal: str | None = None
) -> Iterator[IO[bytes]]:
    """Open ``path`` to append, and hold ``.NAME.lock`` beside it until the end.

    The holder may rename or remove the file: another process then gets a new one.

    Args:
        path: the file, made with its folder if it is not there.
        report, refusal: see :func:`alone`.

    Yields:
        The stream; flush it, an error of closing it is not reported.

    Raises:
        UserError: ``refusal``, or the file cannot be written.
    """

    def unwritable(error: OSError) -> UserError:
        return UserError(f"{path} cannot be written: {error.strerror or error}")

    lock = path.with_name(f".{path.name}.lock")
    with alone(lock, report, refusal, unwritable):
        try:
            stream = path.open("ab")
        except OSError as error:
            raise unwritable(error) from error
        try:
            yield stream
        finally:
            # What could not be written was reported when it was flushed.
            with suppress(OSError):
                stream.close()
