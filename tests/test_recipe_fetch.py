"""Fetching and unpacking of corpora, against a server on this machine."""

import gzip
import hashlib
import http.server
import io
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import fetch as module
from espnet_cif_hkd.recipe.fetch import extract_tar, fetch, is_extracted

CONTENT = bytes(range(256)) * 20_000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FIRST = 1_000_003


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; every request takes the next of ``behaviours``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours: list[str] = []
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/corpus.tgz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        behaviour = self.server.behaviours.pop(0) if self.server.behaviours else ""
        if behaviour.isdigit():
            self.send_error(int(behaviour))
            return
        begin = 0
        if wanted is not None and behaviour != "no range":
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.end_headers()
                return
            if behaviour == "wrong part":
                begin += 1
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}"
            )
        else:
            self.send_response(200)
        body = CONTENT[begin:]
        if behaviour != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A client that has read enough hangs up.
        with suppress(ConnectionError):
            self.wfile.write(body[:FIRST] if behaviour == "cut" else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def _known(server: Server, path: Path) -> Path:
    return fetch(server.url, path, size_bytes=len(CONTENT), md5=MD5, sha256=SHA256)


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "corpus.tgz"
    assert _known(server, path) == path
    assert path.read_bytes() == CONTENT
    assert _known(server, path) == path
    assert server.ranges == [None]
    assert not path.with_name("corpus.tgz.part").exists()


def test_a_cut_connection_goes_on_where_it_stopped(
    server: Server, tmp_path: Path
) -> None:
    server.behaviours = ["cut", "503", "cut"]
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT
    assert server.ranges == [
        None,
        f"bytes={FIRST}-",
        f"bytes={FIRST}-",
        f"bytes={2 * FIRST}-",
    ]


def test_a_later_run_goes_on(server: Server, tmp_path: Path) -> None:
    (tmp_path / "c.part").write_bytes(CONTENT[:5])
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT
    assert server.ranges == ["bytes=5-"]


@pytest.mark.parametrize("behaviour", ["no range", "wrong part"])
def test_a_server_that_cannot_send_the_rest(
    server: Server, tmp_path: Path, behaviour: str
) -> None:
    (tmp_path / "c.part").write_bytes(CONTENT[:5])
    server.behaviours = [behaviour]
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT


def test_a_part_that_is_already_whole(server: Server, tmp_path: Path) -> None:
    (tmp_path / "c.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "c").read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    (tmp_path / "d.part").write_bytes(CONTENT)
    assert _known(server, tmp_path / "d").read_bytes() == CONTENT
    assert len(server.ranges) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_part_that_is_too_long_is_fetched_anew(
    server: Server, tmp_path: Path, known: bool
) -> None:
    (tmp_path / "c.part").write_bytes(CONTENT + b"x")
    size = len(CONTENT) if known else None
    assert fetch(server.url, tmp_path / "c", size_bytes=size).read_bytes() == CONTENT


def test_without_a_length_the_hash_tells(server: Server, tmp_path: Path) -> None:
    server.behaviours = ["no length"]
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT


def test_wrong_size_is_told_before_anything_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="5,120,000 bytes instead of 7") as raised:
        fetch(server.url, tmp_path / "c", size_bytes=7)
    assert server.url in str(raised.value) and str(tmp_path / "c") in str(raised.value)
    assert (tmp_path / "c.part").stat().st_size == 0


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_wrong_hash_is_not_kept(server: Server, tmp_path: Path, name: str) -> None:
    wrong = {name: "0" * 32}
    with pytest.raises(UserError, match=f"its {name} is .* instead of 0+; what came"):
        fetch(server.url, tmp_path / "c", **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT


def test_a_file_of_the_user_is_checked_and_kept(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(UserError, match=r"md5 is .* move it away"):
        _known(server, path)
    path.write_bytes(b"short")
    with pytest.raises(UserError, match="5 bytes instead of 5,120,000; move it away"):
        _known(server, path)
    assert path.read_bytes() == b"short"
    assert server.ranges == []


def test_a_file_is_checked_again_when_it_has_changed(
    server: Server, tmp_path: Path
) -> None:
    path = _known(server, tmp_path / "c")
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(UserError, match="md5"):
        _known(server, path)


@pytest.mark.parametrize("code", ["403", "404"])
def test_a_refusal_is_not_tried_again(
    server: Server, tmp_path: Path, code: str
) -> None:
    server.behaviours = [code, code]
    with pytest.raises(UserError, match=f"the server says {code}.* put it at"):
        _known(server, tmp_path / "c")
    assert len(server.ranges) == 1


def test_it_gives_up_and_says_how_to_go_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 3)
    server.behaviours = ["cut", "503", "502"]
    with pytest.raises(UserError, match=r"502 .*run this again to go on") as raised:
        _known(server, tmp_path / "c")
    assert server.url in str(raised.value)
    assert (tmp_path / "c.part").stat().st_size == FIRST
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "_ATTEMPTS", 2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match=r"cannot fetch http://127\.0\.0\.1:9/x"):
        fetch("http://127.0.0.1:9/x", tmp_path / "c")


def test_addresses_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only http and https"):
        fetch("file:///etc/passwd", tmp_path / "c")


def test_two_at_once(server: Server, tmp_path: Path) -> None:
    with (
        module._only_one(tmp_path / "c.part"),
        pytest.raises(UserError, match="another process"),
    ):
        _known(server, tmp_path / "c")


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"c\.part cannot be written: "):
        _known(server, tmp_path / "file" / "c")


def test_a_full_disk_is_told_beforehand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(UserError, match="the rest of c needs about 5 MiB"):
        _known(server, tmp_path / "c")


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
from espnet_cif_hkd.recipe import unpack
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
def test_evil_archives(
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
    whole = path.read_bytes()
    # A plain archive is cut at the end of a member, where tarfile itself sees nothing.
    path.write_bytes(whole[: 512 + 3072 if mode == "w" else len(whole) - 20])
    with pytest.raises(UserError, match=r"a.tgz is damaged \(.+\): remove it"):
        extract_tar(path, tmp_path / "out")
    assert not is_extracted(path, tmp_path / "out")


def test_a_wrong_checksum(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.tgz")
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match="is damaged"):
        extract_tar(path, tmp_path / "out")


def test_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(b"<html>not found</html>" * 50))
    with pytest.raises(UserError, match="is damaged"):
        extract_tar(tmp_path / "a.tgz", tmp_path / "out")
    with pytest.raises(UserError, match="missing: fetch it again"):
        extract_tar(tmp_path / "b.tgz", tmp_path / "out")
