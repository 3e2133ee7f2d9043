"""Fetching of corpora, against a server on this machine."""

import errno
import hashlib
import http.client
import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import fetch as module
from espnet_cif_hkd.io.fetch import fetch

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
        self.content = CONTENT
        self.version: dict[str, str] = {}
        self.honours_if_range = True

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
        begin, content = 0, self.server.content
        condition = self.headers.get("If-Range")
        stale = condition is not None and condition not in self.server.version.values()
        if stale and self.server.honours_if_range:
            wanted = None
        if wanted is not None and behaviour != "no range":
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                for name, value in self.server.version.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            if behaviour == "wrong part":
                begin += 1
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}"
            )
        else:
            self.send_response(200)
        body = content[begin:]
        if behaviour != "no length":
            self.send_header("Content-Length", str(len(body)))
        for name, value in self.server.version.items():
            self.send_header(name, value)
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


MODIFIED = "Last-Modified"
VERSIONS = [
    (
        {MODIFIED: "Mon, 02 Nov 2026 00:00:00 GMT"},
        {MODIFIED: "Tue, 03 Nov 2026 00:00:00 GMT"},
    ),
    ({"ETag": '"a"'}, {"ETag": '"b"'}),
    ({"ETag": 'W/"a"'}, {"ETag": 'W/"b"'}),
]


@pytest.mark.parametrize("honours_if_range", [True, False])
@pytest.mark.parametrize(("old", "new"), VERSIONS, ids=["date", "tag", "weak tag"])
@pytest.mark.parametrize("shift", [0, 1], ids=["same length", "longer"])
def test_a_file_that_changed_between_two_calls_is_not_mixed(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: dict[str, str],
    new: dict[str, str],
    honours_if_range: bool,
    shift: int,
) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    server.behaviours, server.version = ["cut"], old
    with pytest.raises(UserError, match="run this again"):
        fetch(server.url, tmp_path / "c")
    monkeypatch.setattr(module, "_ATTEMPTS", 3)
    server.content, server.version = CONTENT[::-1] + b"x" * shift, new
    server.honours_if_range = honours_if_range
    assert fetch(server.url, tmp_path / "c").read_bytes() == server.content
    assert {path.name for path in tmp_path.iterdir()} == {"c", ".c.checked"}


def test_a_complete_part_of_a_file_that_changed_is_fetched_again(
    server: Server, tmp_path: Path
) -> None:
    old, new = VERSIONS[0]
    part = tmp_path / "c.part"
    part.write_bytes(CONTENT)
    (tmp_path / ".c.part.version").write_text(f"{old[MODIFIED]}\n")
    server.content, server.version = CONTENT[::-1], new
    server.honours_if_range = False
    assert fetch(server.url, tmp_path / "c").read_bytes() == server.content


@pytest.mark.parametrize("behaviour", ["no range", "wrong part"])
def test_a_server_that_cannot_send_the_rest(
    server: Server, tmp_path: Path, behaviour: str
) -> None:
    (tmp_path / "c.part").write_bytes(CONTENT[:5])
    server.behaviours = [behaviour]
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT


def test_a_part_that_is_already_complete(server: Server, tmp_path: Path) -> None:
    (tmp_path / "c.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "c").read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    (tmp_path / "d.part").write_bytes(CONTENT)
    assert _known(server, tmp_path / "d").read_bytes() == CONTENT
    assert len(server.ranges) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_part_that_is_too_long_is_fetched_again(
    server: Server, tmp_path: Path, known: bool
) -> None:
    (tmp_path / "c.part").write_bytes(CONTENT + b"x")
    size = len(CONTENT) if known else None
    assert fetch(server.url, tmp_path / "c", size_bytes=size).read_bytes() == CONTENT


def test_without_a_length_the_hash_tells(server: Server, tmp_path: Path) -> None:
    server.behaviours = ["no length"]
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT


def test_wrong_size_is_reported_before_anything_is_fetched(
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
    with pytest.raises(UserError, match=r"502 .*run this again to continue") as raised:
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


@pytest.mark.parametrize(
    "lost",
    [
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETDOWN, "Network is down"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_network_that_goes_in_the_middle(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: OSError
) -> None:
    read, left = http.client.HTTPResponse.read, [2]

    def interrupted(response: http.client.HTTPResponse, size: int) -> bytes:
        left[0] -= 1
        if left[0] == 0:
            raise lost
        return read(response, size)

    monkeypatch.setattr(http.client.HTTPResponse, "read", interrupted)
    assert _known(server, tmp_path / "c").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={1 << 20}-"]
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    left[0] = 1
    with pytest.raises(UserError, match=f"cannot fetch http.*{lost.strerror}"):
        _known(server, tmp_path / "d")


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


def test_a_full_disk_is_reported_before_the_transfer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(UserError, match="the rest of c needs about 5 MiB"):
        _known(server, tmp_path / "c")
