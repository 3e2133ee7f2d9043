"""Find ``queen.1c``: given by the user, downloaded earlier, or from Debian."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from fotaq_archive import ArchiveError, extract_from_deb, is_deb, verify

PACKAGE = "flight-of-the-amazon-queen"
ELSEWHERE = (
    f"get the freeware game (Debian package {PACKAGE}, or the English CD version "
    "from the freeware games page of the ScummVM project) and pass its queen.1c, or "
    "the .deb, by --fotaq_archive PATH"
)
_TIMEOUT = 900


def obtain(given: Path | None, downloads: Path) -> Path:
    """Return the path of a verified ``queen.1c``.

    Args:
        given: a ``queen.1c`` or the Debian package. None uses the file in ``downloads``
            of an earlier call, or else ``apt-get download``.
        downloads: folder for downloaded and unpacked files.

    Raises:
        ArchiveError: there is no archive, or it is damaged.
    """
    kept = downloads / "queen.1c"
    if given is None:
        if not kept.is_file():
            downloads.mkdir(parents=True, exist_ok=True)
            _from_package(_apt_download(downloads), kept)
        verify(kept)
        return kept
    if not given.is_file():
        raise ArchiveError(f"--fotaq_archive {given}: no such file")
    if not is_deb(given):
        verify(given)
        return given
    downloads.mkdir(parents=True, exist_ok=True)
    _from_package(given, kept)
    verify(kept)
    return kept


def _from_package(deb: Path, kept: Path) -> None:
    extract_from_deb(deb, kept)
    if kept.parent in deb.parents:
        deb.unlink()


def _apt_download(downloads: Path) -> Path:
    """Download the package without installing it; works with and without root."""
    apt = shutil.which("apt-get")
    if apt is None:
        raise ArchiveError(f"there is no apt-get on this machine: {ELSEWHERE}")
    # When root calls apt, it downloads as another user, which needs access.
    with tempfile.TemporaryDirectory(dir=downloads, prefix="apt.") as folder:
        Path(folder).chmod(0o755)
        failure = _run([apt, "download", PACKAGE], folder)
        if failure is not None and _run([apt, "update"], folder) is None:
            failure = _run([apt, "download", PACKAGE], folder)
        found = sorted(Path(folder).glob("*.deb"))
        if failure is not None or not found:
            raise ArchiveError(
                f"apt-get download {PACKAGE} failed ({failure or 'no file arrived'}): "
                f"run apt-get update as root and try again, or {ELSEWHERE}"
            )
        return found[0].replace(downloads / found[0].name)


def _run(command: list[str], folder: str) -> str | None:
    """Run a command; return None, or the last line of its output if it failed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_TIMEOUT} s"
    if done.returncode == 0:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
