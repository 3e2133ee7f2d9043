"""Long audio in windows that end in pauses; the recogniser hears known words."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from recognitions import recognition

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.cut_windows import PAUSE, recognise_windows
from espnet_cif_hkd.inference.joining import joined
from espnet_cif_hkd.inference.recognition import Flag, Recognition

Spoken = tuple[str, float, float]  # a word, its start and its end
WINDOW = 8.0


class Listener:
    """Hears words, and the part of a word that is inside as another word.

    Attributes:
        heard: The spans that it was given.
    """

    def __init__(self, words: Sequence[Spoken]) -> None:
        self.words, self.heard = words, list[tuple[float, float]]()

    def read(self, start: float, end: float) -> tuple[float, float]:
        return start, end

    def __call__(self, spans: Sequence[tuple[float, float]]) -> list[Recognition]:
        self.heard += spans
        return [self._one(*span) for span in spans]

    def _one(self, start: float, end: float) -> Recognition:
        words = []
        for text, first, last in self.words:
            begin, stop = max(first, start), min(last, end)
            if stop - begin > 1e-6:
                is_complete = stop - begin > last - first - 1e-6
                name = text if is_complete else f"{text}~"
                words.append((name, begin - start, stop - start))
        return recognition(words, duration=end - start)


def run(
    words: Sequence[Spoken], duration: float, state: Path | None = None
) -> tuple[Recognition, Listener]:
    listener = Listener(words)
    found = recognise_windows(listener, listener.read, duration, WINDOW, state)
    return joined(found, duration).validate(), listener


def spoken(found: Recognition) -> list[Spoken]:
    return [(word.text, word.start, word.end) for word in found.words]


def words_of(parts: list[tuple[float, float]]) -> list[Spoken]:
    at, words = 0.0, list[Spoken]()
    for n, (pause, length) in enumerate(parts):
        words.append((f"w{n}", at + pause, at + pause + length))
        at += pause + length
    return words


@example([(0.0, 1.0), (9.0, 3.0), (0.0, 0.1), (0.0, 1.0)], 0.0)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.2, 9.0, 30.0]),
            st.sampled_from([0.1, 0.4, 1.0, 3.0]),
        ),
        max_size=40,
    ),
    st.sampled_from([0.0, 0.3, 3.0, 20.0]),
)
def test_each_word_is_found_once_at_its_time(
    parts: list[tuple[float, float]], rest: float
) -> None:
    """Words are shorter than half a window, so a border of two is always inside."""
    words = words_of(parts)
    duration = (words[-1][2] if words else 0.0) + rest
    found, listener = run(words, duration)
    assert [text for text, *_ in spoken(found)] == [text for text, *_ in words]
    for (_, *ours), (_, *theirs) in zip(spoken(found), words, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
    assert all(end - start <= WINDOW + 1e-6 for start, end in listener.heard)


def test_passages_between_pauses_are_utterances() -> None:
    words = [("so", 1.0, 2.0), ("far", 2.1, 3.0), ("good", 5.0, 6.0)]
    found, listener = run(words, 7.0)
    assert listener.heard == [(0.0, 7.0), (0.0, 4.0), (4.0, 7.0)]
    assert found.text == "so far good" and len(found.segments) == 2


def test_audio_without_a_pause_is_read_once() -> None:
    words = [("so", 1.0, 2.0), ("far", 2.0 + PAUSE - 0.01, 3.0)]
    assert run(words, 7.0)[1].heard == [(0.0, 7.0)]


def test_a_window_ends_in_its_last_pause() -> None:
    words = [("a", 0.0, 3.0), ("b", 4.5, 5.5), ("c", 6.5, 6.8), ("d", 6.9, 12.0)]
    _, listener = run(words, 13.0)
    # The pause before c; that before b is earlier, and there is none before d.
    assert listener.heard[0] == (0.0, 8.0)
    assert (6.0, 13.0) in listener.heard
    # One long word that fills the window is cut at its end, and all is read.
    found, listener = run([("long", 0.0, 20.0)], 20.0)
    assert [span for span, _ in listener.heard] == [0.0, 8.0, 16.0]
    assert found.text == "long~ long~ long~"


@pytest.mark.parametrize(
    ("words", "second"),
    [
        # The border is in the last second, or in the first half.
        ([("a", 3.0, 7.2), ("b", 7.2, 9.0)], 7.2),
        ([("a", 0.0, 1.0), ("b", 3.0, 12.0)], 2.0),
    ],
)
def test_a_long_word_moves_the_border(words: list[Spoken], second: float) -> None:
    _, listener = run(words, 13.0)
    assert any(start == pytest.approx(second) for start, _ in listener.heard)


def test_silence_is_read_with_an_overlap() -> None:
    found, listener = run([], 20.0)
    # A word may begin in the last second of a window.
    assert listener.heard == [(0.0, 8.0), (7.0, 15.0), (14.0, 20.0)]
    assert found == Recognition(duration=20.0)
    assert run([], 0.0)[1].heard == []


def test_warnings_are_those_of_the_kept_audio() -> None:
    def recognise(spans: Sequence[tuple[float, float]]) -> list[Recognition]:
        flags = tuple(Flag("missing", at, at + 0.5, 0.9) for at in (1.0, 7.5))
        return [Recognition(duration=b - a, flags=flags) for a, b in spans]

    found = list(recognise_windows(recognise, lambda a, b: (a, b), 15.0, WINDOW))
    # The second window begins at 7 s; what the first has after it is heard again.
    assert [flag.start for one in found for flag in one.flags] == [1.0, 8.0, 14.5]


def test_an_interrupted_recognition_goes_on(tmp_path: Path) -> None:
    words = [(f"w{n}", 2.0 * n, 2.0 * n + 1) for n in range(20)]
    whole, listener = run(words, 40.0)
    state = tmp_path / "states/one.json"
    first = Listener(words)
    results: Iterator[Recognition] = recognise_windows(
        first, first.read, 40.0, WINDOW, state
    )
    for _ in range(6):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert state.is_file() and len(first.heard) < len(listener.heard)
    found, second = run(words, 40.0, state)
    assert found == whole and not state.exists()
    assert first.heard + second.heard == listener.heard


@pytest.mark.parametrize("content", ["{}", '{"start": "x", "found": []}', "[1]"])
def test_a_damaged_state_is_named(tmp_path: Path, content: str) -> None:
    state = tmp_path / "one.json"
    state.write_text(f"{content}\n")
    with pytest.raises(UserError, match=r"one\.json is no state of a recognition"):
        run([], 9.0, state)


def test_a_line_that_was_not_completed_is_done_again(tmp_path: Path) -> None:
    words = [(f"天{n}", 2.0 * n, 2.0 * n + 1) for n in range(20)]
    state = tmp_path / "one.json"
    whole, listener = run(words, 40.0)
    results = recognise_windows(listener, listener.read, 40.0, WINDOW, state)
    for _ in range(8):
        next(results)
    lines = state.read_text().splitlines()
    assert len(lines) > 1
    state.write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    again = recognise_windows(listener, listener.read, 40.0, WINDOW, state)
    next(again)
    assert state.read_text().splitlines() == lines[:-1]
    assert run(words, 40.0, state)[0] == whole
