"""Subtitles keep their limits, lose no word, and break where a reader would."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recognitions import CHINESE, LATIN, english, recognition, recognitions

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.subtitles import Cue, Limits, cues
from espnet_cif_hkd.inference.units import disjoint

MS = 1e-3


def check(found: Recognition, made: list[Cue], line: int, limits: Limits) -> None:
    """What holds for every result."""
    shown = "".join("".join(cue.lines) for cue in made)
    assert shown.replace(" ", "") == found.text.replace(" ", "")
    for cue in made:
        assert 1 <= len(cue.lines) <= limits.lines
        assert all(0 < len(text) <= line for text in cue.lines)
        assert all(text == text.strip() for text in cue.lines)
        assert 0 <= cue.start < cue.end <= found.duration + 1e-9
        assert cue.end - cue.start <= limits.longest + 1e-9
    for one, after in itertools.pairwise(made):
        assert one.end <= after.start + 1e-9
    if all(len(word.text) <= line for word in found.words):
        assert {cue.start for cue in made} <= {word.start for word in found.words}


@given(recognitions(LATIN))
def test_limits_of_narrow_text(found: Recognition) -> None:
    check(found, cues(found), 42, Limits())


@given(recognitions(CHINESE, spaces=False, longest=400))
def test_limits_of_chinese(found: Recognition) -> None:
    check(found, cues(found), 16, Limits())


@given(
    recognitions(LATIN, most=12),
    st.integers(1, 50),
    st.integers(1, 3),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.sampled_from([2.5, 10.0]),
)
def test_other_limits(
    found: Recognition, line: int, lines: int, shortest: float, longest: float
) -> None:
    limits = Limits(line, lines, shortest, longest)
    check(found, cues(found, limits), line, limits)


def missed(found: Recognition, borders: tuple[int, ...]) -> int | None:
    """Missed limits of a division of the words; None: it breaks a firm limit."""
    count = 0
    words = [*found.words]
    for first, last in itertools.pairwise((0, *borders, len(words))):
        text = " ".join(word.text for word in words[first:last])
        start, spoken = words[first].start, words[last - 1].end
        fits = any(
            max(len(text[:i].strip()), len(text[i:].strip())) <= 42
            for i in range(len(text) + 1)
            if i in (0, len(text)) or " " in (text[i : i + 1], text[i - 1 : i])
        )
        alone = last - first == 1
        if not fits or (spoken - start > 7 and not alone):
            return None
        room = words[last].start if last < len(words) else found.duration
        seconds = min(max(spoken, room), start + 7) - start
        count += (seconds < 5 / 6 - 1e-9) + (len(text) > 20 * seconds + 1e-6)
    return count


@given(recognitions(st.text("abcdef", min_size=1, max_size=25), most=8, longest=900))
def test_no_division_misses_fewer_limits(found: Recognition) -> None:
    if not found.words:
        return
    inner = range(1, len(found.words))
    choices = (
        c for n in range(len(inner) + 1) for c in itertools.combinations(inner, n)
    )
    fewest = min(n for c in choices if (n := missed(found, c)) is not None)
    made = cues(found)
    short = sum(cue.end - cue.start < 5 / 6 - 1e-9 for cue in made)
    fast = sum(
        len(" ".join(cue.lines)) > 20 * (cue.end - cue.start) + 1e-6 for cue in made
    )
    assert short + fast == fewest


def test_two_balanced_lines() -> None:
    found = english("the quick brown fox jumps over the lazy dog and runs away", 0.4)
    (cue,) = cues(found)
    assert cue.lines == ("the quick brown fox jumps over", "the lazy dog and runs away")


def test_breaks_at_pauses_and_sentences() -> None:
    words = [("So.", 0.0, 0.9), ("we", 2.0, 2.3), ("went", 2.3, 2.9), ("on", 2.9, 3.2)]
    assert [cue.lines for cue in cues(recognition(words))] == [
        ("So.",),
        ("we went on",),
    ]
    text = "It is late now for us all. They left early in the day to see it all again."
    assert [" ".join(cue.lines) for cue in cues(english(text, 0.45))] == [
        "It is late now for us all.",
        "They left early in the day to see it all again.",
    ]


def test_a_short_cue_stays_while_nobody_speaks() -> None:
    (cue,) = cues(recognition([("yes", 1.0, 1.2)], duration=9.0))
    assert (cue.start, cue.end) == (1.0, pytest.approx(1.0 + 5 / 6))
    slow = Limits(speed=2.0)
    (cue,) = cues(recognition([("unhurried", 1.0, 1.2)], duration=9.0), slow)
    assert cue.end == pytest.approx(1.0 + 9 / 2)


def test_a_word_longer_than_a_line_is_cut() -> None:
    found = recognition([("x" * 100, 0.0, 5.0)])
    one, two = cues(found)
    assert "".join(one.lines + two.lines) == "x" * 100
    assert one.end == two.start == pytest.approx(5 / 3)


def test_mixed_text_counts_narrow_characters_as_half() -> None:
    words = [(c, i * 0.3, i * 0.3 + 0.3) for i, c in enumerate("天地玄黃宇宙洪荒日月")]
    words.append(("WiFi7890", 3.0, 3.5))
    (cue,) = cues(recognition(words, spaces=False))
    assert cue.lines == ("天地玄黃宇宙洪荒日月WiFi7890",)


def test_nothing_gives_nothing() -> None:
    assert cues(Recognition()) == []
    assert cues(Recognition(duration=3.0)) == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(line=0), "0 characters a line"),
        (Limits(lines=0), "0 lines"),
        (Limits(speed=0), "0 characters a second"),
        (Limits(shortest=3, longest=2), "3 to 2 s"),
    ],
)
def test_impossible_limits(limits: Limits, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cues(english("a b"), limits)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=12)
)
def test_times_without_overlap(parts: list[tuple[int, int]]) -> None:
    starts = sorted(start for start, _ in parts)
    ends: list[int] = []
    for start, (_, length) in zip(starts, parts):
        ends.append(max([start + length, *ends[-1:]]))
    found = recognition([("a", *times) for times in zip(starts, ends)])
    made = disjoint(found.words)
    for (start, end), word in zip(made, found.words):
        assert word.start <= start < end <= word.end
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(made))
