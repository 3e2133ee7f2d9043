"""Fetch a corpus archive; cut off, it goes on later where it stopped."""

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.disk import require_space
from espnet_cif_hkd.io.lock import locked
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import write_text
from espnet_cif_hkd.io.unpack import extract_tar, forget_extracted, is_extracted

__all__ = ["extract_tar", "fetch", "forget_extracted", "is_extracted"]

_BLOCK = 1 << 20
_TIMEOUT = 60.0
# Failures in a row, with nothing received between them, until it is given up.
_ATTEMPTS = 6
_FIRST_PAUSE = 1.0
_LOG_EVERY = 10.0
# A server's refusals that another attempt may overcome.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class _CutOff(Exception):
    """The transfer ended before the file did."""


def fetch(
    url: str,
    path: Path,
    *,
    size_bytes: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
) -> Path:
    """Download ``url`` to ``path``, or find it there.

    What has arrived is kept in ``path`` + ``.part``, and a later call asks the server
    for the rest; a server that cannot send a part sends all of it. A file at ``path``
    is checked once, then again only if its size or time changes.

    Args:
        url: an http or https address.
        path: where the file shall be; its folder is made.
        size_bytes: the size it must have.
        md5, sha256: hexadecimal hashes it must have.

    Returns:
        ``path``.

    Raises:
        UserError: naming the address and the path: it cannot be reached, what came or
            what is at ``path`` is another file, or the disk is full.
    """
    expected = _Expected(url, path, size_bytes, {"md5": md5, "sha256": sha256})
    if path.is_file():
        return expected.found()
    if not url.startswith(("http://", "https://")):
        raise UserError(f"cannot fetch {url}: only http and https addresses")
    part = path.with_name(path.name + ".part")
    with _only_one(part) as stream:
        if path.is_file():
            # Another process has finished since the first look.
            part.unlink()
            return expected.found()
        _download(url, stream, path, size_bytes)
        try:
            expected.check(part, f"what came from {url} is dropped: run this again")
        except UserError:
            part.unlink()
            raise
        os.replace(part, path)
        expected.remember()
    return path


class _Expected:
    """What a file must be, and a note beside it that it has been checked."""

    def __init__(
        self, url: str, path: Path, size: int | None, hashes: dict[str, str | None]
    ) -> None:
        self._url, self._path, self._size = url, path, size
        self._hashes = {k: value.lower() for k, value in hashes.items() if value}
        self._note = path.with_name(f".{path.name}.checked")

    def _state(self) -> str:
        status = self._path.stat()
        return json.dumps([status.st_size, status.st_mtime_ns, self._hashes])

    def remember(self) -> None:
        # The folder may be somebody else's: then the next run checks again.
        with suppress(OSError):
            write_text(self._note, self._state() + "\n")

    def found(self) -> Path:
        """The file that was there, checked."""
        self.check(self._path, f"move it away, or compare it with {self._url}")
        return self._path

    def check(self, file: Path, cure: str) -> None:
        size = file.stat().st_size
        if self._size is not None and size != self._size:
            raise UserError(
                f"{self._path} is not {self._url}: it has {size:,} bytes instead of "
                f"{self._size:,}; {cure}"
            )
        if not self._hashes:
            return
        if file == self._path:
            with suppress(OSError):
                if self._note.read_text(encoding="utf-8").strip() == self._state():
                    return
        for name, wanted in self._hashes.items():
            found = _hash(file, name)
            if found != wanted:
                raise UserError(
                    f"{self._path} is not {self._url}: its {name} is {found} instead "
                    f"of {wanted}; {cure}"
                )
        if file == self._path:
            self.remember()


def _hash(path: Path, name: str) -> str:
    # Integrity, not security: FIPS builds refuse md5 otherwise.
    digest = hashlib.new(name, usedforsecurity=False)
    size = path.stat().st_size
    if size > 1 << 30:
        log(f"checking the {name} of {path} ({_mebibytes(size)})")
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _only_one(part: Path) -> AbstractContextManager[IO[bytes]]:
    """Open ``part`` to append; refuse if another process does so."""
    refusal = f"{part} is being fetched by another process: wait for it"
    return locked(part, log, refusal)


def _download(url: str, stream: IO[bytes], path: Path, size: int | None) -> None:
    """Append to ``stream`` until it is whole; wait and try again when cut off."""
    failures, pause = 0, _FIRST_PAUSE
    while True:
        before = stream.seek(0, os.SEEK_END)
        if before and before == size:
            return
        try:
            _transfer(url, stream, path, size)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _PASSING:
                raise UserError(
                    f"cannot fetch {url}: the server says {error.code} "
                    f"{error.reason}; get it another way and put it at {path}"
                ) from error
            reason = f"{error.code} {error.reason}"
        # Of OSError are time-outs, resets, TLS and routes that are lost, as urllib and
        # the socket under a response raise them. What cannot be written is UserError.
        except (_CutOff, http.client.HTTPException, OSError) as error:
            told = getattr(error, "reason", None) or error
            reason = str(told) or type(error).__name__
        if stream.seek(0, os.SEEK_END) > before:
            failures, pause = 0, _FIRST_PAUSE
        failures += 1
        if failures == _ATTEMPTS:
            raise UserError(
                f"cannot fetch {url} to {path}: {reason}; run this again to go on "
                f"from what is in {path.name}.part, or get it another way and put it "
                f"at {path}"
            )
        log(f"{url}: {reason}; trying again in {pause:.0f} s")
        time.sleep(pause)
        pause *= 2


def _transfer(url: str, stream: IO[bytes], path: Path, size: int | None) -> None:
    """One request: the rest of the file, or all of it.

    Raises:
        _CutOff: less came than was announced.
        UserError: the server's file has another size, or the disk is full.
    """
    begun = stream.seek(0, os.SEEK_END)
    if size is not None and begun > size:
        begun = stream.truncate(0)
    headers = {"User-Agent": "espnet-cif-hkd", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        # Nothing is left to send: whole, unless the server's file has changed.
        if _announced(error.headers.get("Content-Range", "")) == begun:
            return
        stream.truncate(0)
        raise _CutOff("what is here is longer than the server's file") from error
    with response:
        total = _length_of(response, begun)
        if response.status != 206:
            begun = stream.truncate(0)
        elif not response.headers.get("Content-Range", "").startswith(
            f"bytes {begun}-"
        ):
            stream.truncate(0)
            raise _CutOff("the server sent another part than it was asked for")
        if size is not None and total is not None and total != size:
            raise UserError(
                f"{url} has {total:,} bytes instead of {size:,}: it is not the file "
                f"expected at {path}"
            )
        if total is not None:
            what = f"the rest of {path.name}"
            require_space(path.parent, total - begun, what, "choose another folder")
        came = _copy(response, stream, begun, total, url, path)
    if total is not None and came != total:
        raise _CutOff(f"cut off after {came:,} of {total:,} bytes")


def _announced(content_range: str) -> int | None:
    """The total of ``bytes 0-9/10`` or ``bytes */10``."""
    total = content_range.rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _length_of(response: http.client.HTTPResponse, begun: int) -> int | None:
    if response.status == 206:
        return _announced(response.headers.get("Content-Range", ""))
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _copy(
    response: IO[bytes] | http.client.HTTPResponse,
    stream: IO[bytes],
    done: int,
    total: int | None,
    url: str,
    path: Path,
) -> int:
    last = time.monotonic()
    while block := response.read(_BLOCK):
        try:
            stream.write(block)
            stream.flush()
        except OSError as error:
            raise UserError(
                f"{path}.part cannot be written: {error.strerror}; make room and run "
                "this again, it goes on from there"
            ) from error
        done += len(block)
        if time.monotonic() - last >= _LOG_EVERY:
            last = time.monotonic()
            whole = f" of {_mebibytes(total)}" if total else ""
            log(f"{url}: {_mebibytes(done)}{whole}")
    return done
