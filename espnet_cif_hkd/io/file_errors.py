"""One line for an error of the file system that the user can fix."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from espnet_cif_hkd.errors import UserError

# Writing to an open file gives these, without its name.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FIXABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}
_FIXABLE |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@contextmanager
def file_errors_named() -> Iterator[None]:
    """Turn an error of the file system that the user can fix into a ``UserError``.

    Raises:
        UserError: The disk is full, a path cannot be used, or the permission is
            missing; the message has the file, if it is known, and the reason. Other
            errors, such as that of a closed pipe, pass through.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        named = isinstance(name, (str, bytes, os.PathLike))
        if error.errno not in _FULL and not (named and error.errno in _FIXABLE):
            raise
        place = os.fsdecode(name) if named else "a file"
        raise UserError(
            f"{place}: {error.strerror}: correct this and run the command again"
        ) from error
