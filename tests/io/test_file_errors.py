"""Errors of the file system: one line for those that the user can fix."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet_cif_hkd.cli.command import exit_status
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.file_errors import file_errors_named


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()


def write_full() -> None:
    with open("/dev/full", "w") as stream:
        stream.write("something")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: Path("file/a").write_text(""), "file/a: Not a directory: correct"),
        (lambda: Path("file").mkdir(), "file: File exists: correct this and run"),
        (lambda: Path(".").read_text(), ".: Is a directory: correct this and run"),
        (lambda: Path("x" * 300).write_text(""), "x: File name too long: correct"),
        (
            lambda: os.listdir(b"file/b"),
            "file/b: Not a directory: correct this",
        ),
        (write_full, "a file: No space left on device: correct this and run"),
    ],
)
def test_what_the_user_can_fix_is_one_line(
    action: Callable[[], object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError) as caught, file_errors_named():
        action()
    assert message in str(caught.value)
    assert exit_status(lambda: action() and None) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert message in printed


def no_process() -> None:
    """As os.kill does for a process of another user."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (lambda: Path("none").read_text(), FileNotFoundError),
        (lambda: os.write(-1, b""), OSError),
        (no_process, PermissionError),
        (lambda: {}["key"], KeyError),
    ],
)
def test_errors_of_the_program_pass_through(
    action: Callable[[], None], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        exit_status(action)


def test_a_closed_pipe_passes_through() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        exit_status(lambda: os.write(writer, b"something") and None)
    os.close(writer)
