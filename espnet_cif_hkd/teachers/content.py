"""A hash of a teacher's files that does not depend on the folder."""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text

_BLOCK = 1 << 22
_CACHED_FROM = 1 << 20  # bytes: smaller files are always read
_DIGEST_BYTES = 16


def content_hash(files: Iterable[Path], cache: Path | None = None) -> str:
    """Return a hash of the names and contents of ``files``.

    Args:
        files: files of a teacher.
        cache: a file with hashes of large files by path, size, times and inode, so that
            a second call does not read them. Not used if it cannot be written.

    Raises:
        UserError: a file cannot be read.
    """
    known = _read_cache(cache)
    found: dict[str, list[object]] = {}
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for path in sorted(files, key=lambda path: path.name):
        try:
            status = path.stat()
            real = os.path.realpath(path).encode(errors="surrogateescape")
            place = hashlib.blake2b(real, digest_size=_DIGEST_BYTES).hexdigest()
            state: list[object] = [
                *(status.st_size, status.st_mtime_ns, status.st_ctime_ns),
                status.st_ino,
            ]
            *before, known_hash = known.get(place, [None])
            file_hash = known_hash if before == state else _hash(path)
        except OSError as e:
            raise UserError(f"teacher file {path}: cannot be read ({e})") from e
        if status.st_size >= _CACHED_FROM:
            found[place] = [*state, file_hash]
        digest.update(f"{path.name} {file_hash}\n".encode())
    # Without a store there is no folder, and none is made for the cache.
    if cache is not None and cache.parent.is_dir() and found and found != known:
        with suppress(OSError):
            write_text(cache, json.dumps(found))
    return digest.hexdigest()


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with open(path, "rb") as f:
        while block := f.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _read_cache(cache: Path | None) -> dict[str, list[object]]:
    if cache is not None:
        with suppress(OSError, ValueError):
            known = json.loads(cache.read_text(encoding="utf-8"))
            if isinstance(known, dict):
                return {k: v for k, v in known.items() if isinstance(v, list) and v}
    return {}
