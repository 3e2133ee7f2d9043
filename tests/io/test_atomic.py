"""Files appear complete or not at all, and killed writers leave nothing for long."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_cif_hkd.io.atomic import replacing, write_bytes, write_text, writer


def test_text_and_bytes_are_written_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "new/a", "ä\nb\n")
    write_bytes(tmp_path / "b", b"\0\r\n")
    assert (tmp_path / "new/a").read_bytes() == "ä\nb\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\0\r\n"


def test_a_failed_writer_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), writer(path) as stream:
        stream.write("half")
        stream.flush()
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_program_that_writes_by_itself_gets_a_name_with_the_suffix(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new/a.png"
    with replacing(path) as part:
        part.write_bytes(b"picture")
        assert part.suffix == ".png" and not path.exists()
    assert path.read_bytes() == b"picture"
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"picture"
    assert os.listdir(path.parent) == ["a.png"]


KILLED = """
import os, signal, sys
from espnet_cif_hkd.io.atomic import writer
with writer(sys.argv[1]) as stream:
    stream.write("half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["a[1]", "a.tar.gz", "1.2"])
def test_what_a_killed_writer_left_is_removed_by_the_next(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    write_text(path, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old" and len(os.listdir(tmp_path)) == 2
    # The part of a process that runs is not touched.
    host = os.uname().nodename
    running = tmp_path / f".{name}.{host}.{os.getppid()}.part{path.suffix}"
    running.touch()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == [running.name, name]
