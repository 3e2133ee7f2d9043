"""``recipe init``: what it copies, with which modes, and how it fails and resumes."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from unprivileged import open_folder, unprivileged

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import layout
from espnet_cif_hkd.recipe.cli import main

KEPT = {"run.sh", "local/path.sh", "local/data/a", "conf/exp/b", "utils/c", "asr.sh"}
MADE = {"path.sh", "data/d", "exp/e", "local/__pycache__/f", ".queue/g"}


@pytest.fixture
def here() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def shelf(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes, one of them x."""
    shelf = here / "egs2"
    for name in [f"x/asr_hkd/{name}" for name in KEPT | MADE]:
        (shelf / name).parent.mkdir(parents=True, exist_ok=True)
        (shelf / name).write_text(f"#!/bin/sh\n{name}\n" * 3)
    shared = shelf / "TEMPLATE/asr_hkd/cmd.sh"
    shared.parent.mkdir(parents=True)
    shared.write_text("shared by all recipes\n")
    (shelf / "x/asr_hkd/cmd.sh").symlink_to("../../TEMPLATE/asr_hkd/cmd.sh")
    # Links that asr.sh makes into an ESPnet checkout.
    (shelf / "x/asr_hkd/steps").symlink_to(here)
    (here / "db.sh").touch()
    (shelf / "x/asr_hkd/db.sh").symlink_to(here / "db.sh")
    (shelf / "x/asr_hkd/scripts").symlink_to(here / "gone")
    monkeypatch.setattr(layout, "recipes_folder", lambda: shelf)
    return shelf


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_parts_of_a_recipe_are_copied_and_nothing_else(
    shelf: Path, here: Path
) -> None:
    target = here / "mine"
    layout.init(["x", str(target)])
    assert files(target) == KEPT | {"cmd.sh"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert (target / "cmd.sh").read_text() == "shared by all recipes\n"


def test_a_recipe_for_espnet3_has_the_scripts_that_it_links_to(
    shelf: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = here / "egs3/x/esp2_asr"
    (recipe / "exp").mkdir(parents=True)
    for name in ("run.py", "exp/1epoch.pth"):
        (recipe / name).write_text(name)
    (recipe / "local").symlink_to("../../../egs2/x/asr_hkd/local")
    (recipe / "elsewhere").symlink_to(here)
    (shelf / "x/asr_hkd/local/data.sh").write_text("#!/bin/sh\n")
    target = here / "mine"
    layout.init(["egs3/x", str(target)])
    assert files(target) == {
        *("run.py", "local/data.sh", "local/path.sh", "local/data/a")
    }
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert "README.md" in capfd.readouterr().out


def test_an_installation_that_cannot_be_written(shelf: Path, here: Path) -> None:
    for path in [*shelf.rglob("*"), shelf]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    target = here / "mine"
    assert unprivileged(lambda: layout.init(["x", str(target)])) == "None"
    assert files(target) == KEPT | {"cmd.sh"}
    umask = os.umask(0)
    os.umask(umask)
    for path in target.rglob("*"):
        script = path.is_dir() or path.read_bytes().startswith(b"#!")
        wanted = (0o777 if script else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == wanted, path


@pytest.mark.slow
def test_a_target_that_cannot_be_written(shelf: Path, here: Path) -> None:
    (here / "closed").mkdir(mode=0o555)
    (here / "hidden").mkdir(mode=0o700)
    if os.getuid() != 0:
        (here / "hidden").chmod(0)
    (here / "file").write_text("mine")
    (here / "loose").symlink_to(here / "gone/away")
    for name in ("closed", "closed/new", "hidden/new", "file/new", "loose"):
        target = here / name
        printed = unprivileged(lambda target=target: layout.init(["x", str(target)]))
        assert printed.startswith(f"UserError: {here}/{name.split('/')[0]}"), printed
        assert "needs a folder that you can write to" in printed
        assert "\n" not in printed
    with pytest.raises(UserError, match="file is a file: name another folder"):
        layout.init(["x", str(here / "file")])
    assert (here / "file").read_text() == "mine"


@pytest.mark.parametrize("written", [b"", b"#!/bin/sh\nx/asr", None])
def test_an_interrupted_copy_is_completed(
    shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch, written: bytes | None
) -> None:
    """Whether it stopped before a file, within it or after it."""
    target, write = here / "mine", layout._write

    def full(source: Path, copy: Path) -> None:
        if source.name == "run.sh":
            if written is None:
                write(source, copy)
            else:
                copy.write_bytes(written)
            raise OSError(errno.ENOSPC, "No space left on device", str(copy))
        write(source, copy)

    with monkeypatch.context() as patched:
        patched.setattr(layout, "_write", full)
        with pytest.raises(UserError, match=r"run\.sh: No space left on device: "):
            layout.init(["x", str(target)])
    assert "asr.sh" in files(target)
    shutil.copytree(shelf / "x", shelf / "y", symlinks=True)
    with pytest.raises(UserError, match="exists and is not empty"):
        layout.init(["y", str(target)])
    layout.init(["x", str(target)])
    assert files(target) == KEPT | {"cmd.sh"}
    for name in KEPT | {"cmd.sh"}:
        copy, source = target / name, shelf / "x/asr_hkd" / name
        assert copy.read_bytes() == source.read_bytes()
        assert os.access(copy, os.X_OK) == (name != "cmd.sh")


def test_what_the_user_wrote_is_kept(
    shelf: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = here / "mine"
    layout.init(["x", str(target)])
    (target / "run.sh").write_text("mine")
    assert main(["init", "x", str(target)]) == 1
    assert "exists and is not empty: name another folder" in capfd.readouterr().err
    # As if the copy had been interrupted.
    (target / ".init-x").touch()
    (target / "asr.sh").unlink()
    with pytest.raises(UserError, match=r"run\.sh has been changed since an inter"):
        layout.init(["x", str(target)])
    assert (target / "run.sh").read_text() == "mine"
    assert not (target / "asr.sh").exists()


def test_wrong_arguments(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "nothing", str(here / "new")]) == 1
    assert "there is no recipe 'nothing': choose from" in capfd.readouterr().err
    for words in ([], ["fotaq"], ["fotaq", "a", "b"]):
        assert main(["init", *words]) == 1
        assert "usage: recipe init NAME DIR" in capfd.readouterr().err
