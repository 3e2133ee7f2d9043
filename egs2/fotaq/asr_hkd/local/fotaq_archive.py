"""Read the resource archive of the game "Flight of the Amazon Queen".

The freeware release is one file, ``queen.1c``: a magic word, a table of members and the
members. Every read checks the bounds, and no path from the archive is used for writing.
All integers are big-endian.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAGIC = b"QTBL"
COUNT_OFFSET = 0x0D
TABLE_OFFSET = 0x0F
ENTRY = struct.Struct(">12sBII")

ARCHIVE_SIZE = 54_108_887
ARCHIVE_SHA256 = "cc91960d133fcd4173eda4bac304e80d2bbdbaa085640287ab9e0507bd603f67"

_DEB_MAGIC = b"!<arch>\n"
_DEB_MEMBER = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"
_MEMBER_NAME = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9]{1,4})?")


class ArchiveError(ValueError):
    """The archive is missing, damaged or not the release that this recipe expects."""


@dataclass(frozen=True)
class Member:
    """Position of one member in the archive, in bytes."""

    offset: int
    size: int


class Archive:
    """The members of one ``queen.1c``.

    Args:
        data: the bytes of the complete file.
        name: its name in messages.

    Raises:
        ArchiveError: there is no ``QTBL`` table, or a member is outside the file.
    """

    def __init__(self, data: bytes, name: str = "archive") -> None:
        if len(data) < TABLE_OFFSET or data[:4] != MAGIC:
            raise ArchiveError(f"{name}: not a queen.1c archive (no QTBL at its start)")
        (count,) = struct.unpack_from(">H", data, COUNT_OFFSET)
        if TABLE_OFFSET + count * ENTRY.size > len(data):
            raise ArchiveError(f"{name}: the table of {count} members is truncated")
        self._data = data
        self.members: dict[str, Member] = {}
        for index in range(count):
            raw, _, offset, size = ENTRY.unpack_from(
                data, TABLE_OFFSET + index * ENTRY.size
            )
            member = raw.split(b"\0", 1)[0].decode("ascii", errors="replace")
            if not _MEMBER_NAME.fullmatch(member):
                raise ArchiveError(f"{name}: the name of member {index} is invalid")
            if offset + size > len(data):
                raise ArchiveError(f"{name}: member {member} is truncated")
            self.members[member] = Member(offset, size)

    def read(self, name: str) -> bytes:
        """Return the bytes of one member.

        Raises:
            ArchiveError: there is no such member.
        """
        try:
            member = self.members[name]
        except KeyError:
            raise ArchiveError(f"the archive has no member {name}") from None
        return self._data[member.offset : member.offset + member.size]

    def names(self, extension: str) -> list[str]:
        """Return the sorted member names that end in ``.extension``."""
        return sorted(n for n in self.members if n.endswith("." + extension))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path) -> None:
    """Check that a file is the known freeware ``queen.1c`` by its size and SHA-256.

    Raises:
        ArchiveError: it is missing, or its size or SHA-256 differs.
    """
    if not path.is_file():
        raise ArchiveError(f"{path}: no such file")
    size = path.stat().st_size
    if size != ARCHIVE_SIZE:
        raise ArchiveError(
            f"{path}: {size} bytes instead of {ARCHIVE_SIZE}: truncated, or another "
            "release of the game; the recipe needs the English freeware CD version"
        )
    digest = sha256_of(path)
    if digest != ARCHIVE_SHA256:
        raise ArchiveError(
            f"{path}: SHA-256 {digest[:12]}… instead of {ARCHIVE_SHA256[:12]}…: "
            "damaged, or another release of the game; delete it and download it again"
        )


def is_deb(path: Path) -> bool:
    """Whether a file begins like a Debian package."""
    with path.open("rb") as stream:
        return stream.read(len(_DEB_MAGIC)) == _DEB_MAGIC


def extract_from_deb(deb: Path, out: Path) -> None:
    """Copy ``queen.1c``, and nothing else, out of the Debian package.

    This does not use ``dpkg-deb``, so that a package from another machine works on any
    system. The copy gets its name only when it is complete.

    Raises:
        ArchiveError: the package is truncated or does not contain the file.
    """
    partial = out.with_name(out.name + ".partial")
    try:
        with deb.open("rb") as stream:
            payload = _find_payload(stream, deb)
            with tarfile.open(fileobj=payload, mode="r|*") as tar:
                _copy_member(tar, partial, deb)
    except (tarfile.TarError, lzma.LZMAError, EOFError, struct.error) as error:
        partial.unlink(missing_ok=True)
        raise ArchiveError(f"{deb}: damaged Debian package ({error})") from None
    partial.replace(out)


class _Slice:
    """A read-only window on an open file, for tarfile's stream mode."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data


def _find_payload(stream: IO[bytes], deb: Path) -> IO[bytes]:
    if stream.read(len(_DEB_MAGIC)) != _DEB_MAGIC:
        raise ArchiveError(f"{deb}: not a Debian package")
    while True:
        header = stream.read(60)
        if len(header) < 60:
            raise ArchiveError(f"{deb}: truncated, or no Debian package (no data.tar)")
        name = header[:16].decode("ascii", errors="replace").strip().rstrip("/")
        try:
            size = int(header[48:58])
        except ValueError:
            raise ArchiveError(f"{deb}: damaged Debian package") from None
        if name in ("data.tar", "data.tar.xz", "data.tar.gz"):
            return _Slice(stream, size)  # type: ignore[return-value]
        if name.startswith("data.tar"):
            raise ArchiveError(
                f"{deb}: its {name} cannot be opened here: unpack the package with "
                "dpkg-deb -x and pass the queen.1c in it"
            )
        stream.seek(size + size % 2, 1)


def _copy_member(tar: tarfile.TarFile, partial: Path, deb: Path) -> None:
    for info in tar:
        if info.isfile() and info.name.removeprefix("./") == _DEB_MEMBER:
            source = tar.extractfile(info)
            if source is None:
                break
            with partial.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            return
    raise ArchiveError(f"{deb}: no queen.1c in this package")
