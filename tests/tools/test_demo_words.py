"""tools/demo_report.py: times of words, of letters and of sub-words."""

from typing import Any

import demo_report
import pytest


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["H", "I", "<space>", "A"], [("HI", 0, 2), ("A", 3, 4)]),
        (["\u2581HE", "L", "LO", "\u2581A"], [("HELLO", 0, 3), ("A", 3, 4)]),
        (["\u2581", "A", "B", "\u2581C"], [("AB", 1, 3), ("C", 3, 4)]),
        (["<space>", "A", "<space>", "<space>"], [("A", 1, 2)]),
        ([], []),
    ],
)
def test_words_of_letters_and_of_sub_words(
    monkeypatch: pytest.MonkeyPatch,
    tokens: list[str],
    words: list[tuple[str, float, float]],
) -> None:
    class Known:
        def __init__(self) -> None:
            self.tokens = tokens

    spans: list[Any] = [(float(n), n + 1.0, 0) for n in range(len(tokens) + 1)]
    monkeypatch.setattr(demo_report, "labels_of", lambda alignment: spans)
    found = demo_report.word_times(Known())  # type: ignore[arg-type]
    assert found == words
