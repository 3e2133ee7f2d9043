"""Utterances for training from recognised recordings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recognitions import recognition, recognitions

from espnet_cif_hkd.inference.pseudo_labels import MARGIN, Piece, pieces_of
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.units import plain

PAUSED = [("so", 1.0, 1.5), ("far", 1.6, 2.0), ("good", 2.7, 3.2), ("bye", 9.0, 9.4)]


def test_a_short_recording_is_one_utterance() -> None:
    found = recognition(PAUSED, duration=10.0)
    assert list(pieces_of(found, 10.0)) == [
        Piece(0.0, 10.0, True, "so far good bye", 0.5, False)
    ]


def test_a_long_one_is_cut_in_its_pauses() -> None:
    found = recognition(PAUSED, duration=9.5)
    pieces = list(pieces_of(found, 9.0))
    assert [one.text for one in pieces] == ["so far", "good", "bye"]
    assert not any(one.complete for one in pieces)
    # A margin of 0.2 s at both ends; the audio ends 0.1 s after the last word.
    times = [time for one in pieces for time in (one.start, one.end)]
    assert times == pytest.approx([0.8, 2.2, 2.5, 3.4, 8.8, 9.5])


def test_a_margin_ends_in_the_middle_of_a_short_pause() -> None:
    words = [("so", 1.0, 1.5), ("far", 1.7, 2.0)]
    found = recognition(words, duration=3.0, pause=0.1)
    (first, second) = pieces_of(found, 1.0)
    assert first.end == second.start == pytest.approx(1.6)


@given(recognitions(), st.sampled_from([0.5, 3.0, 1e4]))
def test_pieces_are_all_of_the_text_and_do_not_overlap(
    found: Recognition, longest: float
) -> None:
    pieces = list(pieces_of(found, longest))
    joined = " ".join(one.text for one in pieces)
    assert joined.split() == plain(found.text).split()
    borders = [time for one in pieces for time in (one.start, one.end)]
    assert borders == sorted(borders)
    assert all(0 <= time <= found.duration for time in borders)
    for one, passage in zip(pieces, found.segments):
        if not one.complete:
            assert one.start <= passage.start < passage.end <= one.end
            assert (
                one.end - one.start <= passage.end - passage.start + 2 * MARGIN + 1e-9
            )


def test_the_confidence_is_the_mean_over_words_or_unknown() -> None:
    (one,) = pieces_of(recognition(PAUSED, confidence=None), 20.0)
    assert math.isnan(one.confidence)
    (none,) = pieces_of(Recognition(duration=2.0), 20.0)
    assert none.text == "" and math.isnan(none.confidence)
    assert list(pieces_of(Recognition(duration=30.0), 20.0)) == []


def test_a_piece_with_an_unknown_token() -> None:
    found = recognition([*PAUSED[:2], ("<unk>", 4.0, 4.5)], duration=5.0)
    assert [one.unknown for one in pieces_of(found, 4.0)] == [False, True]
    assert [one.unknown for one in pieces_of(found, 5.0)] == [True]
