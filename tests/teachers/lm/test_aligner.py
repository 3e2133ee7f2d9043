"""Forced alignment by pocketsphinx: labels, times, and the same result each time."""

import sys
from pathlib import Path

import numpy as np
import pytest
from spoken_noise import LEXICON, RATE, TEXTS, TOKENS, burst, data_dir, vowels

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.aligner import Aligner, NoAlignmentError
from espnet_cif_hkd.teachers.lm.aligning import Speech, align_folders
from espnet_cif_hkd.teachers.lm.lexicon import Lexicon
from espnet_cif_hkd.teachers.lm.spans import Alignments
from espnet_cif_hkd.teachers.lm.units import build_unit


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON + "ahee AA IY\n")
    return Lexicon(path)


def test_a_missing_package_is_named(
    lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match=r"python3 -m pip install pocketsphinx$"):
        Aligner(lexicon)


@pytest.fixture
def aligner(lexicon: Lexicon) -> Aligner:
    pytest.importorskip("pocketsphinx")
    return Aligner(lexicon)


@pytest.mark.parametrize("rate", [8000, RATE, 16000, 44100])
def test_phones_are_where_they_sound(rate: int, aligner: Aligner) -> None:
    import soxr

    for start, end in ((0.3, 0.5), (0.7, 1.0)):
        samples = soxr.resample(vowels(1.5, start, end), RATE, rate)
        phones = aligner("ahee", samples, rate).phones
        assert [one.label for one in phones] == ["AA", "IY"]
        starts = np.array([one.start for one in phones])
        found = starts * aligner.stride + aligner.offset
        np.testing.assert_allclose(found, (start, (start + end) / 2), atol=0.04)


def test_labels_are_those_of_the_unit(aligner: Aligner, lexicon: Lexicon) -> None:
    tokens = [*TOKENS[:-1], "AA", TOKENS[-1]]
    conf = {"unit": "lexicon", "unit_token_list": tokens, "lexicon": lexicon.path}
    unit = build_unit(conf, [])
    for text in TEXTS.values():
        phones = aligner(text, burst(1.2, 0.2, 1.0), RATE).phones
        assert [tokens.index(one.label) for one in phones] == unit.encode(text)
        ends = [one.start + one.duration for one in phones]
        assert all(len(one.states) == 3 for one in phones)
        assert all(b.start >= end for b, end in zip(phones[1:], ends))
        assert ends[-1] * aligner.stride <= 1.2


@pytest.mark.slow
def test_the_result_depends_on_the_utterance_only(
    aligner: Aligner, lexicon: Lexicon
) -> None:
    def found(aligner: Aligner, n: int) -> object:
        text = list(TEXTS.values())[n]
        samples = burst(1.2, 0.2 + 0.1 * n, 1.0, seed=n) * (1 + n)
        return aligner(text, samples, RATE)

    first = [found(aligner, n) for n in range(4)]
    assert [found(aligner, n) for n in (3, 2, 1, 0)] == first[::-1]
    assert [found(Aligner(lexicon), n) for n in range(4)] == first


@pytest.mark.parametrize(
    "text,reason",
    [
        ("she queen", "the word queen has no pronunciation"),
        ("she <unk>", "an unknown word has no pronunciation"),
        ("", "no words"),
        ("she sees us she sees us she sees us", "finds no alignment"),
    ],
)
def test_reasons(text: str, reason: str, aligner: Aligner) -> None:
    with pytest.raises(NoAlignmentError, match=reason):
        aligner(text, burst(0.2, 0, 0.2), RATE)
    aligner("she", burst(0.5, 0, 0.4), RATE)  # it can still be used


def test_audio_without_samples_has_no_alignment(aligner: Aligner) -> None:
    for samples in (np.zeros(0), np.zeros(5)):
        with pytest.raises(NoAlignmentError):
            aligner("she", samples, RATE)


@pytest.mark.slow
def test_several_processes_give_the_same_files(
    tmp_path: Path, lexicon: Lexicon
) -> None:
    pytest.importorskip("pocketsphinx")
    speech = Speech((data_dir(tmp_path / "data"),), RATE, lexicon.path)
    align_folders(speech, tmp_path / "one")
    align_folders(speech, tmp_path / "two", nj=2)
    for name in ("phone.ctm", "state.ctm", "state_tokens.txt"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert len(Alignments(tmp_path / "two" / "phone.ctm", TOKENS)) == len(TEXTS)
