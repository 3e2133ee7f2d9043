"""Kaldi's tables as people write them: marks, line ends, tabs, odd white space."""

from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import (
    copy_data_dir,
    evenly,
    read_lines,
    read_table,
    read_text,
    single_spaced,
    split_evenly,
    write_table,
)


def test_tables_are_sorted_by_bytes_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "text"
    write_table(path, {"b": "x  y", "B": "", "é": "1", "a": "2"})
    assert path.read_text(encoding="utf-8") == "B\na 2\nb x  y\né 1\n"
    assert read_table(path) == {"B": "", "a": "2", "b": "x  y", "é": "1"}
    assert [item.name for item in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffu1 a b\nu2 c\n",
        "u1 a b\n\ufeffu2 c\n",
        "u1 a b\r\nu2 c\r\n",
        "u1 a b\ru2 c\r",
        "u1\ta b\nu2\tc",
        "  u1  a b \n\n u2 c\n",
        "\ufeff\ufeffu1 a b\r\n\r\nu2\tc\r\n",
        "u1\u3000a b\nu2\u00a0c\n",
    ],
)
def test_one_table_however_it_is_stored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wav.scp"
    path.write_bytes(content.encode())
    assert read_table(path) == {"u1": "a b", "u2": "c"}


def test_keys_know_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "segments"
    path.write_text("\nb 1\n\na 2\n")
    assert read_table(path).lines == {"b": 2, "a": 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"u1 a\nu2 c\nu1 b\n", "text, line 3: u1 occurs twice, first in line 1"),
        (b"\xef\xbb\xbfu1 a\nu1 b\n", "text, line 2: u1 occurs twice"),
        (b"u1 a\nu2 \xff\n", "text, line 2: not UTF-8"),
        ("u1 a\n".encode("utf-16"), "text, line 1: not UTF-8"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(path)


def test_a_missing_table_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="text is missing: do this"):
        read_table(tmp_path / "text", "do this")


def test_lines_without_a_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\r\n\r\nb")
    assert read_lines(path) == ["a", "", "b"]
    path.write_bytes(b"")
    assert read_lines(path) == []


# Unicode's White_Space, and the zero-width space, which marks a word boundary.
SPACES = "\t\x0b\x0c\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u200b" + "".join(
    map(chr, range(0x2000, 0x200B))
)


@pytest.mark.parametrize("space", SPACES, ids=lambda char: f"U+{ord(char):04X}")
def test_every_unicode_space_separates_words(space: str) -> None:
    assert single_spaced(f"{space}你{space}好 {space}a{space}") == "你 好 a"


def test_what_joins_words_is_removed_and_what_spells_them_stays() -> None:
    assert single_spaced("a\u2060b\ufeffc") == "abc"
    assert single_spaced("می\u200cخواهم क्\u200dष") == "می\u200cخواهم क्\u200dष"


def test_a_copied_folder_is_clean(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    (source / "text").write_bytes("\ufeffu1 a\u3000b\r\nu2 c d\r\n".encode())
    (source / "utt2spk").write_bytes("\ufeffu1\ts\r\nu2\ts\r\n".encode())
    (source / "spk2gender").write_bytes("\ufeffs f\r\n".encode())
    assert copy_data_dir(source, target) == 1
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "text": "u1 a b\nu2 c d\n",
        "utt2spk": "u1 s\nu2 s\n",
        "spk2utt": "s u1 u2\n",
        "spk2gender": "s f\n",
    }
    assert copy_data_dir(target, tmp_path / "c") == 0
    assert read_text(source / "text") == {"u1": "a b", "u2": "c d"}


def test_splitting_is_even_and_keeps_the_order() -> None:
    assert split_evenly(list("abcdefg"), 3) == [list("abc"), list("de"), list("fg")]
    assert split_evenly(["a"], 5) == [["a"]]


def test_utterances_are_chosen_from_all_speakers() -> None:
    keys = [f"speaker{n // 50}-{n:03d}" for n in range(250)]
    chosen = evenly(keys, 100)
    assert len(set(chosen)) == 100 and (chosen[0], chosen[-1]) == (keys[0], keys[-1])
    assert {key.split("-")[0] for key in evenly(chosen, 10)} == {
        f"speaker{n}" for n in range(5)
    }
    assert evenly(keys[:3], 100) == keys[:3] and not evenly([], 9)
