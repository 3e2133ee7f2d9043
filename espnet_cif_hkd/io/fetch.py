"""Download a corpus archive; the next call resumes an interrupted transfer."""

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, suppress
from email.message import Message
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
# Number of failures in a row without any received data before it gives up.
_ATTEMPTS = 6
_FIRST_PAUSE = 1.0
_LOG_EVERY = 10.0
# HTTP errors for which another attempt may succeed.
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
    """Download ``url`` to ``path``, or check an existing file.

    Received data are kept in ``path`` + ``.part``, and a later call requests the rest.
    A server that cannot send a part sends the complete file. If the file on the server
    has changed, the part is deleted. A file at ``path`` is checked once, and again only
    if its size or time changes.

    Args:
        url: an http or https address.
        path: target file; its folder is made if necessary.
        size_bytes: expected size in bytes.
        md5, sha256: expected hashes, hexadecimal.

    Returns:
        ``path``.

    Raises:
        UserError: the address cannot be reached, the received or the existing file is
            another one, or the disk is full.
    """
    expected = _Expected(url, path, size_bytes, {"md5": md5, "sha256": sha256})
    if path.is_file():
        return expected.found()
    if not url.startswith(("http://", "https://")):
        raise UserError(f"cannot fetch {url}: only http and https addresses")
    part = path.with_name(path.name + ".part")
    with _only_one(part) as stream:
        if path.is_file():
            # Another process has finished since the first check.
            part.unlink()
            return expected.found()
        source = _Source(part)
        _download(url, stream, path, size_bytes, source)
        try:
            expected.check(part, f"what came from {url} is dropped: run this again")
        except UserError:
            part.unlink()
            raise
        finally:
            source.forget()
        os.replace(part, path)
        expected.remember()
    return path


class _Expected:
    """Expected size and hashes of a file, and the record of a successful check."""

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
        # If the folder is not writable, the next run checks again.
        with suppress(OSError):
            write_text(self._note, self._state() + "\n")

    def found(self) -> Path:
        """Check the existing file and return its path."""
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


class _Source:
    """The version of the server's file to which a part belongs, in a file.

    The version is the server's Last-Modified, or else its ETag. If a server sends
    neither, only the hash of the complete file shows a change.
    """

    def __init__(self, part: Path) -> None:
        self._note = part.with_name(f".{part.name}.version")

    def known(self) -> str:
        """Return the recorded version; empty if there is none."""
        with suppress(OSError):
            return self._note.read_text(encoding="utf-8").strip()
        return ""

    def remember(self, headers: Message) -> None:
        with suppress(OSError):
            write_text(self._note, self.of(headers) + "\n")

    def forget(self) -> None:
        with suppress(OSError):
            self._note.unlink(missing_ok=True)

    @staticmethod
    def of(headers: Message) -> str:
        return headers.get("Last-Modified") or headers.get("ETag") or ""

    def has_changed(self, headers: Message) -> bool:
        """Whether the server's file has another version than the part."""
        now, known = self.of(headers), self.known()
        return bool(now and known and now != known)


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
    """Open ``part`` to append; raise UserError if another process has it open."""
    refusal = f"{part} is being fetched by another process: wait for it"
    return locked(part, log, refusal)


def _download(
    url: str, stream: IO[bytes], path: Path, size: int | None, source: _Source
) -> None:
    """Append to ``stream`` until it is complete; wait and retry after interruptions."""
    failures, pause = 0, _FIRST_PAUSE
    while True:
        before = stream.seek(0, os.SEEK_END)
        if before and before == size:
            return
        try:
            _transfer(url, stream, path, size, source)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _PASSING:
                raise UserError(
                    f"cannot fetch {url}: the server says {error.code} "
                    f"{error.reason}; get it another way and put it at {path}"
                ) from error
            reason = f"{error.code} {error.reason}"
        # urllib and sockets raise OSError for time-outs, resets, TLS and lost routes.
        # Errors of writing the file are UserErrors.
        except (_CutOff, http.client.HTTPException, OSError) as error:
            cause = getattr(error, "reason", None) or error
            reason = str(cause) or type(error).__name__
        if stream.seek(0, os.SEEK_END) > before:
            failures, pause = 0, _FIRST_PAUSE
        failures += 1
        if failures == _ATTEMPTS:
            raise UserError(
                f"cannot fetch {url} to {path}: {reason}; run this again to continue "
                f"from {path.name}.part, or get it another way and put it "
                f"at {path}"
            )
        log(f"{url}: {reason}; trying again in {pause:.0f} s")
        time.sleep(pause)
        pause *= 2


def _transfer(
    url: str, stream: IO[bytes], path: Path, size: int | None, source: _Source
) -> None:
    """Send one request for the rest of the file, or for all of it.

    Raises:
        _CutOff: less data came than announced, or the part belongs to an older file and
            was deleted.
        UserError: the server's file has another size, or the disk is full.
    """
    begun = stream.seek(0, os.SEEK_END)
    if size is not None and begun > size:
        begun = stream.truncate(0)
    headers = {"User-Agent": "espnet-cif-hkd", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
        # A weak ETag is not allowed here; then has_changed compares the versions.
        if source.known() and not source.known().startswith("W/"):
            headers["If-Range"] = source.known()
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        # The part has the full size: complete, unless the server's file has changed.
        announced = _announced(error.headers.get("Content-Range", ""))
        if announced == begun and not source.has_changed(error.headers):
            return
        stream.truncate(0)
        raise _CutOff("the server's file has changed since the part came") from error
    with response:
        total = _length_of(response, begun)
        if response.status != 206:
            begun = stream.truncate(0)
        elif not response.headers.get("Content-Range", "").startswith(
            f"bytes {begun}-"
        ):
            stream.truncate(0)
            raise _CutOff("the server sent another part than it was asked for")
        elif source.has_changed(response.headers):
            stream.truncate(0)
            raise _CutOff("the server's file has changed since the part came")
        if not begun:
            source.remember(response.headers)
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
    """Return the total size in ``bytes 0-9/10`` or ``bytes */10``."""
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
                "this again, it continues from there"
            ) from error
        done += len(block)
        if time.monotonic() - last >= _LOG_EVERY:
            last = time.monotonic()
            of_all = f" of {_mebibytes(total)}" if total else ""
            log(f"{url}: {_mebibytes(done)}{of_all}")
    return done
