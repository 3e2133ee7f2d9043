"""Times of words from the phones that flite prints; a script stands in for flite."""

from pathlib import Path

import flite_words
import pytest

from espnet_cif_hkd.errors import UserError

SPOKEN = {
    "go on": "pau:0.2 g:0.3 ow:0.45 aa:0.6 n:0.75 pau:0.9",
    "go": "pau:0.2 g:0.3 ow:0.5 pau:0.7",
    "on": "pau:0.2 aa:0.3 n:0.5 pau:0.7",
    "on, go": "pau:0.2 aa:0.3 n:0.4 pau:0.6 g:0.7 ow:0.8 pau:1.0",
    "on,": "pau:0.2 aa:0.3 n:0.5 pau:0.7",
    "go gone": "pau:0.2 g:0.3 ow:0.5 g:0.6 n:0.7 pau:0.8",
    "gone": "pau:0.2 g:0.3 ao:0.4 n:0.5 pau:0.6",
    "- go": "pau:0.2 g:0.3 ow:0.5 pau:0.7",
    "-": "pau:0.2",
}


@pytest.fixture(autouse=True)
def flite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only program on PATH; its arguments: -voice V -psdur -t TEXT FILE."""
    file = tmp_path / "flite"
    cases = "".join(f'"{text}") echo "{out}";;\n' for text, out in SPOKEN.items())
    file.write_text(f'#!/bin/sh\ncase "$5" in\n{cases}*) exit 1;;\nesac\n')
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    flite_words._phones.cache_clear()
    return file


def times(*words: str) -> list[flite_words.Span] | None:
    return flite_words.word_times("slt", words, Path("none"))


def test_a_word_has_the_times_of_its_phones_without_pauses() -> None:
    assert times("GO", "ON") == [(0.2, 0.45), (0.45, 0.75)]
    assert times("ON,", "GO") == [(0.2, 0.4), (0.6, 0.8)]


def test_phones_that_do_not_add_up_give_no_times() -> None:
    assert times("GO", "GONE") is None
    assert times("-", "GO") is None


def test_a_machine_without_flite_is_one_line(flite: Path) -> None:
    flite.unlink()
    with pytest.raises(UserError, match=r"not installed: apt-get install flite"):
        times("GO")
