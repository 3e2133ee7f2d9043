"""Unpack tar archives safely; the next call resumes an interrupted run."""

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.disk import remove
from espnet_cif_hkd.io.lock import alone
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import write_text

_BLOCK = 1 << 20
_LOG_EVERY = 10.0
# Compression formats by their first bytes. Their readers detect truncation and wrong
# checksums.
_PACKINGS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


def is_extracted(archive: Path, folder: Path) -> bool:
    """Whether :func:`extract_tar` has unpacked this ``archive`` into ``folder``.

    The archive may have been removed since then. An archive of another size is another
    archive.
    """
    try:
        size = _marker(archive, folder).read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return not archive.exists() or size == str(archive.stat().st_size)


def _marker(archive: Path, folder: Path) -> Path:
    return folder / f".{archive.name}.extracted"


def forget_extracted(archive: Path, folder: Path) -> None:
    """Make :func:`extract_tar` unpack the archive again.

    Raises:
        UserError: the marker file cannot be removed.
    """
    remove(_marker(archive, folder), "it would keep the archive from being unpacked")


def extract_tar(archive: Path, folder: Path) -> None:
    """Unpack a tar archive (plain, gz, bz2 or xz) and keep it.

    Each file appears only when it is complete; a call after an interruption writes only
    missing files. Files get the times of the archive and the user's default
    permissions. ``.NAME.extracted`` in ``folder`` marks a complete result. A second
    process waits for the first one, by ``.NAME.lock`` in ``folder``.

    Raises:
        UserError: the archive is missing, damaged or truncated, a member would leave
            ``folder`` or is no file, folder or link, or the disk is full.
    """
    if is_extracted(archive, folder):
        return
    if not archive.is_file():
        raise UserError(f"{archive} is missing: fetch it again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / f".{archive.name}.lock", log):
            if not is_extracted(archive, folder):
                _extract(archive, folder)
                write_text(_marker(archive, folder), f"{archive.stat().st_size}\n")
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(archive, str(error)) from error
    except gzip.BadGzipFile as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        raise UserError(
            f"{archive} cannot be unpacked into {folder}: {error}; fix that and run "
            "this again, it continues from there"
        ) from error


def _damaged(archive: Path, reason: str) -> UserError:
    return UserError(f"{archive} is damaged ({reason}): remove it and fetch it again")


@contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Open the decompressed content of ``raw``; truncated data raise EOFError."""
    magic = raw.read(6)
    raw.seek(0)
    for start, opener in _PACKINGS.items():
        if magic.startswith(start):
            with opener(raw) as opened:
                yield opened
            return
    # A plain tar has no checksum, but ends with zeros.
    raw.seek(max(raw.seek(0, os.SEEK_END) - tarfile.BLOCKSIZE, 0))
    if raw.read().strip(b"\0"):
        raise EOFError("its end is missing")
    raw.seek(0)
    yield raw


def _extract(archive: Path, folder: Path) -> None:
    size, last, links = archive.stat().st_size, time.monotonic(), []
    with archive.open("rb") as raw, _decompressed(raw) as stream:
        # As a stream: a large compressed archive is read only once, from the start.
        with tarfile.open(fileobj=stream, mode="r|") as members:
            for member in members:
                target = _inside(archive, folder, member)
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                elif member.isreg():
                    _write(members, member, target)
                else:
                    _link(folder, member, target)
                    links.append((member, target))
                if time.monotonic() - last >= _LOG_EVERY:
                    last = time.monotonic()
                    log(f"unpacking {archive}: {raw.tell() / size:.0%}")
        # tarfile stops at the end marker, before the checksum.
        while stream.read(_BLOCK):
            pass
    for member, target in links:
        # A later link may have changed the target of an earlier one.
        if target.is_symlink() and not _contains(folder, target):
            target.unlink()
            raise _leaves(archive, folder, member)


def _contains(folder: Path, path: Path) -> bool:
    root, real = os.path.realpath(folder), os.path.realpath(path)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def _leaves(archive: Path, folder: Path, member: tarfile.TarInfo) -> UserError:
    return UserError(
        f"{archive}: {member.name!r} would leave {folder}: do not trust this archive"
    )


def _inside(archive: Path, folder: Path, member: tarfile.TarInfo) -> Path:
    """Return the target of a member, by the rules of ``tarfile.data_filter``."""
    try:
        target = folder / tarfile.data_filter(member, str(folder)).name
    except tarfile.SpecialFileError as error:
        raise UserError(
            f"{archive}: {member.name!r} is a device or a pipe: do not trust this "
            "archive"
        ) from error
    except tarfile.FilterError as error:
        raise _leaves(archive, folder, member) from error
    # The filter would make absolute names relative; our archives have none. A file
    # named "." would replace the folder.
    if member.name.startswith("/") or (target == folder and not member.isdir()):
        raise _leaves(archive, folder, member)
    return target


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    with suppress(OSError):
        found = target.lstat()
        if found.st_size == member.size and int(found.st_mtime) == int(member.mtime):
            return
    content = members.extractfile(member)
    if content is None:
        raise tarfile.ExtractError(f"{member.name} has no content")
    target.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name, so that the next run overwrites the file of a killed run.
    part = target.with_name(f".{target.name}.part")
    try:
        with content, part.open("wb") as stream:
            shutil.copyfileobj(content, stream, _BLOCK)
        if part.stat().st_size != member.size:
            raise EOFError(f"{member.name} is cut off")
        os.utime(part, (member.mtime, member.mtime))
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _link(folder: Path, member: tarfile.TarInfo, target: Path) -> None:
    """Make a link; :func:`_inside` has checked that its target is in ``folder``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    else:
        os.link(folder / member.linkname, target, follow_symlinks=False)
