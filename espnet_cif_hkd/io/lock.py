"""Locks between processes, by filelock."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from espnet_cif_hkd.errors import UserError

Report = Callable[[str], object]

# Errors of a file system without locks, such as Lustre or NFS with some mount options.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def alone(
    path: Path,
    report: Report,
    refusal: str | None = None,
    unwritable: Callable[[OSError], UserError] | None = None,
) -> Iterator[None]:
    """Hold a lock; the lock file exists only while a process holds it.

    The system frees the lock of a killed process. On a file system without locks, this
    is reported and nothing is locked.

    Args:
        path: the lock file; its folder is made if necessary.
        report: prints or logs a line, such as that this process waits.
        refusal: error message if another process holds the lock; None: wait for it.
        unwritable: makes the error for a file that cannot be written; None: a default
            message.

    Raises:
        UserError: with ``refusal``, or because the file cannot be written.
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
        # Remove it while it is held: a process that waits for it makes a new one.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def locked(
    path: Path, report: Report, refusal: str | None = None
) -> Iterator[IO[bytes]]:
    """Open ``path`` to append while holding ``.NAME.lock`` in the same folder.

    The holder may rename or remove the file; then another process gets a new one.

    Args:
        path: the file; it and its folder are made if necessary.
        report, refusal: see :func:`alone`.

    Yields:
        The stream. Flush it: errors while closing it are not reported.

    Raises:
        UserError: with ``refusal``, or because the file cannot be written.
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
            # Errors of writing were reported at the flush.
            with suppress(OSError):
                stream.close()
