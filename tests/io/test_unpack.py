"""Unpacking of archives, malicious ones included."""

import gzip
import io
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.fetch import extract_tar, is_extracted

FILES = {"top/a.txt": b"a" * 3000, "top/sub/b.txt": b"b", "./c": b""}


def _add(archive: tarfile.TarFile, name: str, content: bytes = b"x") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(content), 1_000_000_000
    archive.addfile(member, io.BytesIO(content))


def _archive(path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in FILES.items():
            _add(archive, name, content)
    return path


def _unpacked(folder: Path) -> dict[str, bytes]:
    return {
        f"./{file.name}"
        if file.parent == folder
        else str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith(".extracted")
    }


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_extract(tmp_path: Path, mode: str) -> None:
    archive, folder = _archive(tmp_path / "a.tar", mode), tmp_path / "out"
    assert not is_extracted(archive, folder)
    extract_tar(archive, folder)
    assert _unpacked(folder) == FILES
    assert is_extracted(archive, folder)
    assert (folder / "top/a.txt").stat().st_mtime == 1_000_000_000


def test_a_finished_folder_is_not_unpacked_again(tmp_path: Path) -> None:
    archive, folder = _archive(tmp_path / "a.tgz"), tmp_path / "out"
    extract_tar(archive, folder)
    (folder / "top/a.txt").unlink()
    extract_tar(archive, folder)
    assert not (folder / "top/a.txt").exists()
    archive.unlink()
    assert is_extracted(archive, folder)
    with tarfile.open(archive, "w:gz") as other:
        _add(other, "other")
    assert not is_extracted(archive, folder)
    extract_tar(archive, folder)
    assert (folder / "other").read_bytes() == b"x"


def test_beside_its_own_archive(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "a.tgz")
    extract_tar(archive, tmp_path)
    assert (tmp_path / "top/sub/b.txt").read_bytes() == b"b" and archive.exists()


def test_a_kill_in_the_middle(tmp_path: Path) -> None:
    archive, folder = _archive(tmp_path / "a.tgz"), tmp_path / "out"
    script = """
import os, signal, sys
from pathlib import Path
from espnet_cif_hkd.io import unpack
replace, count = os.replace, 0
def killed(part, target):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, target)
os.replace = killed
unpack.extract_tar(Path(sys.argv[1]), Path(sys.argv[2]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, archive, folder], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert not is_extracted(archive, folder)
    assert (folder / "top/a.txt").is_file() and not (folder / "top/sub/b.txt").exists()
    before = (folder / "top/a.txt").stat().st_ino
    extract_tar(archive, folder)
    assert _unpacked(folder) == FILES
    assert (folder / "top/a.txt").stat().st_ino == before


def _name(name: str) -> Callable[[tarfile.TarFile], None]:
    return lambda archive: _add(archive, name)


def _kind(kind: bytes, name: str, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member)

    return add


def _through_a_link(archive: tarfile.TarFile) -> None:
    _kind(tarfile.SYMTYPE, "door", "..")(archive)
    _add(archive, "door/evil")


def _link_turned_later(archive: tarfile.TarFile) -> None:
    _kind(tarfile.SYMTYPE, "window", "later/../x")(archive)
    _kind(tarfile.SYMTYPE, "later", ".")(archive)


@pytest.mark.parametrize(
    ("evil", "message"),
    [
        (_name("/tmp/evil"), "would leave"),
        (_name("../evil"), "would leave"),
        (_name("a/../../evil"), "would leave"),
        (_name("."), "would leave"),
        (_name("./."), "would leave"),
        (_kind(tarfile.DIRTYPE, "../evil"), "would leave"),
        (_kind(tarfile.SYMTYPE, "evil", "/etc/passwd"), "would leave"),
        (_kind(tarfile.SYMTYPE, "a/evil", "../../evil"), "would leave"),
        (_kind(tarfile.LNKTYPE, "evil", "../secret"), "would leave"),
        (_through_a_link, "would leave"),
        (_link_turned_later, "would leave"),
        (_kind(tarfile.FIFOTYPE, "evil"), "a device or a pipe"),
        (_kind(tarfile.CHRTYPE, "evil"), "a device or a pipe"),
    ],
)
def test_malicious_archives(
    tmp_path: Path, evil: Callable[[tarfile.TarFile], None], message: str
) -> None:
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "out"
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        evil(archive)
    with pytest.raises(UserError, match=message) as raised:
        extract_tar(tmp_path / "a.tgz", folder)
    assert "a.tgz" in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tgz", "out", "secret"}
    assert not is_extracted(tmp_path / "a.tgz", folder)


def test_a_link_that_was_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/top").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="would leave"):
        extract_tar(_archive(tmp_path / "a.tgz"), tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_that_stay_inside(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        _add(archive, "a/file", b"content")
        _kind(tarfile.SYMTYPE, "a/soft", "../a/file")(archive)
        _kind(tarfile.LNKTYPE, "hard", "a/file")(archive)
    extract_tar(tmp_path / "a.tgz", tmp_path / "out")
    assert (tmp_path / "out/a/soft").read_bytes() == b"content"
    assert (tmp_path / "out/hard").read_bytes() == b"content"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_cut_off_archives(tmp_path: Path, mode: str) -> None:
    path = _archive(tmp_path / "a.tgz", mode)
    complete = path.read_bytes()
    # A plain archive is cut at the end of a member, where tarfile itself sees nothing.
    path.write_bytes(complete[: 512 + 3072 if mode == "w" else len(complete) - 20])
    with pytest.raises(UserError, match=r"a.tgz is damaged \(.+\): remove it"):
        extract_tar(path, tmp_path / "out")
    assert not is_extracted(path, tmp_path / "out")


def test_a_wrong_checksum(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.tgz")
    complete = bytearray(path.read_bytes())
    complete[-6] ^= 1
    path.write_bytes(complete)
    with pytest.raises(UserError, match="is damaged"):
        extract_tar(path, tmp_path / "out")


def test_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(b"<html>not found</html>" * 50))
    with pytest.raises(UserError, match="is damaged"):
        extract_tar(tmp_path / "a.tgz", tmp_path / "out")
    with pytest.raises(UserError, match="missing: fetch it again"):
        extract_tar(tmp_path / "b.tgz", tmp_path / "out")
