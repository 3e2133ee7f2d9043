"""espnet-cif align: the times of a known text; with a recogniser without a model."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_cif_hkd.cli import align

pytestmark = pytest.mark.usefixtures("fake")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.full(8000, 0.1), 8000)
    return [str(tmp_path / f"{name}.wav") for name in "ab"]


def run(*args) -> int:
    return align.main([*map(str, args), "--model", "m", "--device", "cpu"])


def test_a_text_of_the_command_line(files, capsys) -> None:
    assert run(files[0], "--text", " so  far ", "-f", "ctm") == 0
    assert capsys.readouterr().out == (
        "a 1 0.000 0.500 so 0.5000\na 1 0.500 0.500 far 0.5000\n"
    )


def test_a_table_of_texts(tmp_path, files, capsys) -> None:
    table = tmp_path / "text"
    table.write_text("b two words\na one\nc more\n")
    assert run(*files, "--text", table, "-f", "text") == 0
    assert capsys.readouterr().out == "a one\nb two words\n"
    assert run(*files, "--text", table, "-f", "textgrid", "-o", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.TextGrid"))) == 2


def test_a_long_sentence(files, capsys) -> None:
    assert run(files[0], "--text", "words " * 100) == 0
    assert capsys.readouterr().out.split() == ["words"] * 100


def test_a_corrected_text_is_aligned_again(tmp_path, files, capsys) -> None:
    table, out = tmp_path / "text", tmp_path / "out"
    table.write_text("a one\nb two\n")
    options = ("--text", table, "-f", "text", "-o", out)
    assert run(*files, *options) == 0
    table.write_text("b three\na one\n")
    assert run(*files, *options) == 0
    assert "1 of 2 files have complete results" in capsys.readouterr().err
    assert (out / "text").read_text() == "a one\nb three\n"


def test_a_text_file_of_one_recording(tmp_path, files, capsys) -> None:
    text = tmp_path / "a.txt"
    text.write_text("what is\nsaid\n")
    assert run(files[0], "--text", text) == 0
    assert capsys.readouterr().out == "what is said\n"


def test_texts_that_are_missing(tmp_path, files, capsys) -> None:
    assert run(*files, "--text", "some words") == 1
    assert "several recordings need a table" in capsys.readouterr().err
    table = tmp_path / "text"
    table.write_text("c one\n")
    assert run(*files, "--text", table) == 1
    assert f"{table}: no text for a and 1 more" in capsys.readouterr().err
