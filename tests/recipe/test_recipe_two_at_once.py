"""Two processes that want the same corpus do not break each other's files."""

import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import fetch as fetching
from espnet_cif_hkd.io import unpack
from espnet_cif_hkd.io.fetch import fetch
from espnet_cif_hkd.io.lock import locked
from espnet_cif_hkd.io.unpack import extract_tar

URL = "http://127.0.0.1:9/c"
CONTENT = b"a corpus"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once somebody waits for a lock."""
    event = threading.Event()
    monkeypatch.setattr(unpack, "log", lambda line: event.set())
    return event


def test_what_has_come_is_checked_before_another_may_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, looked = tmp_path / "c", []
    (tmp_path / "c.part").write_bytes(CONTENT)

    def other_process(file: Path, name: str) -> str:
        looked.append(file.name)
        with pytest.raises(UserError, match="fetched by another process"):
            fetch(URL, path, size_bytes=len(CONTENT))
        return "0"

    monkeypatch.setattr(fetching, "_hash", other_process)
    assert fetch(URL, path, size_bytes=len(CONTENT), md5="0") == path
    assert looked == ["c.part"] and path.read_bytes() == CONTENT


def test_a_file_that_another_process_has_brought_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, only_one = tmp_path / "c", fetching._only_one

    @contextmanager
    def too_late(part: Path) -> Iterator[IO[bytes]]:
        path.write_bytes(CONTENT)
        with only_one(part) as stream:
            yield stream

    monkeypatch.setattr(fetching, "_only_one", too_late)
    assert fetch(URL, path, size_bytes=len(CONTENT)) == path
    assert [file.name for file in tmp_path.iterdir()] == ["c"]
    path.unlink()
    with pytest.raises(UserError, match="8 bytes instead of 9; move it away"):
        fetch(URL, path, size_bytes=len(CONTENT) + 1)


@pytest.mark.parametrize("fate", ["renamed", "removed"])
def test_who_waited_does_not_write_into_a_file_that_is_finished(
    tmp_path: Path, waiting: threading.Event, fate: str
) -> None:
    path, done = tmp_path / "c.part", tmp_path / "c"

    def other() -> None:
        with locked(path, lambda line: waiting.set()) as stream:
            stream.write(b"other")
            stream.flush()

    thread = threading.Thread(target=other)
    with locked(path, print) as stream:
        thread.start()
        assert waiting.wait(30)
        stream.write(CONTENT)
        stream.flush()
        if fate == "renamed":
            path.replace(done)
        else:
            path.unlink()
    thread.join(30)
    assert path.read_bytes() == b"other"
    assert fate == "removed" or done.read_bytes() == CONTENT


def test_an_archive_is_unpacked_by_one_while_the_other_waits(
    tmp_path: Path, waiting: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "out"
    (tmp_path / "file").write_bytes(CONTENT)
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "file", "file")
    extract, calls = unpack._extract, []
    other = threading.Thread(target=extract_tar, args=(archive, folder))

    def slowly(archive: Path, folder: Path) -> None:
        calls.append(archive)
        if not waiting.is_set():
            other.start()
            assert waiting.wait(30)
        extract(archive, folder)

    monkeypatch.setattr(unpack, "_extract", slowly)
    extract_tar(archive, folder)
    other.join(30)
    assert calls == [archive] and not other.is_alive()
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".a.tar.extracted", "file"]
