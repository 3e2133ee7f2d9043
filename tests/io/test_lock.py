"""One process at a time: waiting, refusing, killed holders, folders without locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.lock import alone, locked

HOLD = """
import sys, time
from pathlib import Path
from espnet_cif_hkd.io.lock import alone
with alone(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_of_another_process_is_refused_or_waited_for(tmp_path, holder):
    path, lines, order = tmp_path / "lock", [], []
    with pytest.raises(UserError, match=r"^busy$"), alone(path, print, "busy"):
        raise AssertionError
    waiting = threading.Event()

    def report(line):
        lines.append(line)
        waiting.set()

    def second():
        with alone(path, report):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    assert waiting.wait(30) and not order
    # The system frees the lock of a killed process.
    os.kill(holder.pid, signal.SIGKILL)
    thread.join(30)
    assert order == ["second"]
    assert lines == [f"waiting for another process, which has locked {path}"]
    assert not path.exists()


@pytest.mark.slow
def test_many_processes_are_never_inside_together(tmp_path):
    """Also though the lock file is removed each time."""
    counter = tmp_path / "count"
    counter.write_text("0")
    code = """
import sys, time
from pathlib import Path
from espnet_cif_hkd.io.lock import alone
folder = Path(sys.argv[1])
for _ in range(25):
    with alone(folder / "lock", lambda line: None):
        count = int((folder / "count").read_text())
        time.sleep(0.001)
        (folder / "count").write_text(str(count + 1))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert counter.read_text() == "100" and not (tmp_path / "lock").exists()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_the_work_goes_on_with_a_warning(
    tmp_path, monkeypatch, recwarn, code
):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    lines: list[str] = []
    with locked(tmp_path / "file", lines.append) as stream:
        stream.write(b"x")
        stream.flush()
    assert (tmp_path / "file").read_bytes() == b"x"
    # Without flock at all, filelock itself may warn and make a lock of another kind.
    warned = [w for w in recwarn if "flock not supported" in str(w.message)]
    assert len(lines) == 1 or (code == errno.ENOSYS and len(warned) == 1)
    assert all("do not run this twice at once" in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    inside = tmp_path / "file" / "a" / "b"
    with pytest.raises(UserError, match=r"b cannot be written: ") as caught:
        alone(inside, print).__enter__()
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"b cannot be written: ") as caught:
        locked(inside, print).__enter__()
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^mine$"):
        alone(inside, print, unwritable=lambda e: UserError("mine")).__enter__()
    with pytest.raises(UserError, match="folder cannot be written: Is a dir"):
        locked(tmp_path / "folder", print).__enter__()


def test_an_error_inside_frees_the_lock_and_is_not_renamed(tmp_path: Path):
    for error in (OSError(errno.EIO, "mine"), NotImplementedError("mine"), KeyError()):
        with pytest.raises(type(error)), alone(tmp_path / "lock", print):
            raise error
        with alone(tmp_path / "lock", print, "busy"):
            pass
