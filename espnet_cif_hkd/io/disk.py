"""Checks of disk space and permissions; removal of files."""

import os
import shutil
from pathlib import Path

from espnet_cif_hkd.errors import UserError


def require_space(
    place: Path,
    needed: int,
    what: str,
    cure: str = "choose another --dumpdir or --expdir",
) -> None:
    """Check that the file system of ``place`` has ``needed`` free bytes.

    Args:
        place: a folder; it need not exist yet.
        needed: number of bytes.
        what: what needs the space, such as ``stage 3``, for the message.
        cure: another fix than to make room, for the message.

    Raises:
        UserError: there is too little space.
    """
    folder = place.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs about {needed / 2**20:.0f} MiB in {place}, "
            f"{free / 2**20:.0f} MiB are free: make room, or {cure}"
        )


def require_writable(folder: Path) -> None:
    """Check that files can be written in a folder; it need not exist yet.

    Raises:
        UserError: a file is in the way, or a permission is missing.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise UserError(
            f"{folder} cannot be written: {place} is not a folder: move it away"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder} cannot be written: no permission for {place}: change its owner "
            "or mode, or name another folder"
        )


def remove(path: Path, consequence: str) -> None:
    """Delete a file, if it exists.

    Args:
        path: the file.
        consequence: effect of keeping the file, for the message.

    Raises:
        UserError: the folder is not writable.
    """
    # A read-only file system refuses to remove even a missing file.
    if not os.path.lexists(path):
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be removed ({error.strerror}): {consequence}"
        ) from error
