"""Folders that a run cannot write to: one line before anything is computed."""

from pathlib import Path

import pytest
import tiny_recipe
from unprivileged import open_folder, unprivileged

from espnet_cif_hkd.io import disk
from espnet_cif_hkd.recipe import cli
from espnet_cif_hkd.recipe.cli import main


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "changed", "obstacle"),
    [
        ("1", {}, "data"),
        ("3", {}, "dump"),
        ("3", {"dumpdir": "here/there/dump"}, "here"),
        ("5", {}, "data/token_list"),
        ("10", {}, "exp"),
        ("11", {"expdir": "here/exp"}, "here"),
    ],
)
def test_a_file_where_a_folder_should_be(
    stage: str,
    changed: dict[str, str],
    obstacle: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    Path(obstacle).parent.mkdir(exist_ok=True)
    Path(obstacle).write_text("mine")
    words = tiny_recipe.options(stage=stage, stop_stage=stage, **changed)
    assert main(words) == 1
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("error: ")
    assert f"{Path(obstacle).absolute()} is not a folder: move it away" in printed
    assert Path(obstacle).read_text() == "mine"


def test_a_folder_without_permission(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = tiny_recipe.options(stop_stage="3")
    with open_folder() as folder:
        tiny_recipe.make(folder)
        monkeypatch.chdir(folder)
        Path("dump").mkdir(mode=0o555)
        assert unprivileged(lambda: main(words)) == "1"
        assert not Path("data").exists()
        place = Path("dump").absolute()
    printed = capfd.readouterr().err
    assert printed.startswith(
        f"error: dump cannot be written: no permission for {place}"
    )
    assert printed.count("\n") == 1


def test_an_obstacle_that_shows_only_when_it_is_reached(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(tiny_recipe.options(stop_stage="1")) == 0
    words = tiny_recipe.options(stage="3", stop_stage="3", dumpdir="dump")
    Path("dump/raw").mkdir(parents=True)
    Path("dump/raw/org").write_text("mine")
    assert main(words) == 1
    printed = capfd.readouterr().err
    assert printed.startswith("error: dump/raw/org") and printed.count("\n") == 1
    assert "correct this and run the command again" in printed


def test_a_full_disk_names_no_file(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(words: list[str]) -> None:
        with Path("/dev/full").open("w") as stream:
            stream.write("something")

    monkeypatch.setattr(cli, "run_recipe", full)
    assert main([]) == 1
    printed = capfd.readouterr().err
    assert printed.startswith("error: a file: No space left on device: correct this")
    assert printed.count("\n") == 1


def test_an_error_of_the_program_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(words: list[str]) -> None:
        raise FileNotFoundError(2, "No such file", "a")

    monkeypatch.setattr(cli, "run_recipe", broken)
    with pytest.raises(FileNotFoundError):
        main([])


def test_reuse_needs_no_permission_for_what_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = tiny_recipe.options(stop_stage="1", reuse="true")
    assert main(words) == 0
    monkeypatch.setattr(disk.os, "access", lambda path, mode: False)
    assert main(words) == 0
