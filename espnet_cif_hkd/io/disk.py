"""Is there room for what a stage will write, and may a file be removed?"""

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
    """Refuse to start when the file system of ``place`` has not ``needed`` bytes.

    Args:
        place: a folder, which need not exist yet.
        needed: bytes.
        what: needs them, such as ``stage 3``.
        cure: what may be done other than to make room.

    Raises:
        UserError: naming the place, what is needed and what is free.
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
    """Refuse a folder in which nothing can be written; it need not exist yet.

    Raises:
        UserError: naming the folder, and the file or folder that is the obstacle.
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
    """Delete a file, if it is there.

    Args:
        path: the file.
        consequence: why it matters, for the message.

    Raises:
        UserError: naming the file: the folder is not ours to write.
    """
    # A read-only file system refuses to remove even what is not there.
    if not os.path.lexists(path):
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be removed ({error.strerror}): {consequence}"
        ) from error
