"""Shards of --num_splits_asr and --num_splits_lm follow changes of their files."""

from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.stages import statistics
from espnet_cif_hkd.recipe.stages.statistics import split_scps


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "wav.scp", tmp_path / "text"]
    for path in paths:
        path.write_text("".join(f"u{n} {path.name}{n}\n" for n in range(5)))
    return paths


def shards(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.glob("*/split.*"))
    }


def test_a_changed_source_or_number_makes_them_again(
    tmp_path: Path, sources: list[Path]
) -> None:
    folder = tmp_path / "splits2"
    split_scps(sources, 2, folder)
    assert shards(folder)["text/split.1"] == "u1 text1\nu3 text3\n"
    sources[1].write_text(sources[1].read_text().replace("text1", "corrected"))
    split_scps(sources, 2, folder)
    assert shards(folder)["text/split.1"] == "u1 corrected\nu3 text3\n"
    split_scps(sources, 3, folder)
    assert len(shards(folder)) == 6
    split_scps(sources, 2, folder)
    assert len(shards(folder)) == 4


def test_those_of_the_same_files_are_kept(tmp_path: Path, sources: list[Path]) -> None:
    folder = tmp_path / "splits2"
    split_scps(sources, 2, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    split_scps(sources, 2, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_interrupted_ones_and_those_of_asr_sh_are_made_again(
    tmp_path: Path, sources: list[Path]
) -> None:
    folder = tmp_path / "splits2"
    split_scps(sources, 2, folder)
    expected, done = shards(folder), folder / ".done"
    for mark in (None, ""):
        (folder / "text/split.0").write_text("half")
        done.unlink()
        if mark is not None:
            done.write_text(mark)
        split_scps(sources, 2, folder)
        assert shards(folder) == expected and done.is_file()
    sources[0].write_text("u0 a\n")
    with pytest.raises(UserError, match="splitting failed"):
        split_scps(sources, 2, folder)
    assert not done.exists()


def test_new_statistics_take_the_mark_from_old_shards(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """asr.sh looks at the mark alone."""
    split_scps(sources, 2, tmp_path / "splits2")
    monkeypatch.setattr(statistics, "call", lambda *_: None)
    keys = {"train": ("train", ["u0"]), "valid": ("valid", ["u1"])}
    statistics.collect("m", tmp_path, keys, lambda *_: [], 1, "stage 10")
    assert not (tmp_path / "splits2/.done").exists()
