"""Packages: downloaded by their clients, checked, never incomplete."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import packages
from espnet_cif_hkd.io.packages import Package

CONTENT = b"the file that is known"


def _package(file: str) -> object:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return Package(file, len(CONTENT), digest, "made-up", "The moon has it")


@pytest.fixture(params=["made-up_1_all.deb", "made_up-1-py3-none-any.whl"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    return _package(request.param)


def _client(
    monkeypatch: pytest.MonkeyPatch, brings: Callable[[int], bytes | None]
) -> list[list[str]]:
    """apt-get and pip that bring ``brings(n)`` at the n-th try, or fail."""
    runs: list[list[str]] = []

    def run(
        command: list[str], cwd: Path, **_: object
    ) -> subprocess.CompletedProcess[str]:
        runs.append(command)
        content = brings(len(runs))
        if content is not None and command[-1] == "made-up":
            # apt-get writes ~ and : of a version as addresses have them.
            (Path(cwd) / "made%7eup").write_bytes(content)
        code = 0 if content is not None else 100
        return subprocess.CompletedProcess(command, code, "some words\nE: no route\n")

    monkeypatch.setattr(subprocess, "run", run)
    return runs


def test_what_came_gets_its_name(
    package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _client(monkeypatch, lambda _: CONTENT)
    path = packages.obtain(package, tmp_path / "new")
    assert path == tmp_path / "new" / package.file
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == [package.file]
    packages.obtain(package, tmp_path / "new")
    assert len(runs) == 1


def test_apt_updates_its_lists_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    runs = _client(monkeypatch, lambda n: None if n == 1 else CONTENT)
    packages.obtain(_package("made-up_1_all.deb"), tmp_path)
    assert [run[1] for run in runs] == ["download", "update", "download"]


def test_another_file_is_replaced_by_the_right_one_only(
    package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / package.file
    path.write_bytes(CONTENT[:-1] + b"?")
    _client(monkeypatch, lambda _: None)
    with pytest.raises(UserError, match=r"made-up \(E: no route\)\. The moon has it"):
        packages.obtain(package, tmp_path)
    assert path.read_bytes() == CONTENT[:-1] + b"?"
    _client(monkeypatch, lambda _: CONTENT)
    packages.obtain(package, tmp_path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (CONTENT + b"!", f"has {len(CONTENT) + 1} bytes, not {len(CONTENT)}"),
        (CONTENT[:-1] + b"?", "its SHA-256 is"),
    ],
)
def test_another_release_is_refused(
    package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, wrong: str
) -> None:
    _client(monkeypatch, lambda _: content)
    with pytest.raises(UserError, match=wrong) as caught:
        packages.obtain(package, tmp_path)
    assert f"put {package.file} into {tmp_path}" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_apt_the_error_says_where_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"it is not on this machine\)\. The moon"):
        packages.obtain(_package("made-up_1_all.deb"), tmp_path)


def test_a_client_that_does_not_answer_is_given_up(
    package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="no answer within 5 s"):
        packages.obtain(package, tmp_path, timeout=5)
