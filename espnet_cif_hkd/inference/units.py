"""Words of a result with their share of the text, and times that do not overlap."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from espnet_cif_hkd.inference.recognition import Recognition, Segment


class Timed(Protocol):
    """Anything with a start and an end in seconds."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


@dataclass(frozen=True)
class Unit:
    """A word with its share of the text.

    Attributes:
        text: Without spaces around it.
        start, end: Seconds; the units of a list do not overlap.
        spaced: True if a space precedes the word in the text.
        closes: True if the word is the last one of a segment.
    """

    text: str
    start: float
    end: float
    spaced: bool = False
    closes: bool = False


def plain(text: str) -> str:
    """Return ``text`` in one line: any white space becomes one ASCII space.

    Control characters, which no format can carry, are left out.
    """
    kept = (
        c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs")
    )
    return " ".join("".join(kept).split())


def is_wide(char: str) -> bool:
    """True for characters of double width, such as Chinese ones."""
    return unicodedata.east_asian_width(char) in ("W", "F")


def disjoint(parts: Sequence[Timed]) -> list[tuple[float, float]]:
    """Return the times of ``parts`` without overlaps.

    Where a part starts before the end of the one before, the border is that start or,
    if both start together, the middle.

    Args:
        parts: With starts and ends that do not decrease, and ``start < end``.

    Returns:
        ``(start, end)`` of each part in seconds, ``start < end <= next start``.
    """
    times: list[tuple[float, float]] = []
    begin = 0.0
    for index, one in enumerate(parts):
        begin, end = max(begin, one.start), one.end
        if index + 1 < len(parts):
            end = min(end, max(parts[index + 1].start, (begin + end) / 2))
        times.append((begin, end))
        begin = end
    return times


def units_of(found: Recognition) -> list[Unit]:
    """Return the words of a result; joined with their spaces they are its text.

    Pieces of the text between two words, such as spaces and punctuation, belong to the
    first of the two; pieces before the first word to the first word.
    """
    tokens, words = found.tokens, found.words
    last = {segment.last - 1 for segment in found.segments}
    units = []
    before = ""
    for index, (word, (start, end)) in enumerate(zip(words, disjoint(words))):
        first = word.first if index else 0
        after = words[index + 1].first if index + 1 < len(words) else len(tokens)
        text = "".join(token.text for token in tokens[first:after])
        spaced = index > 0 and (text[:1].isspace() or before[-1:].isspace())
        before = text
        units.append(Unit(plain(text), start, end, spaced, index in last))
    return [unit for unit in units if unit.text]


def segments_of(found: Recognition) -> tuple[Segment, ...]:
    """Return the segments; without any, one that has all words."""
    if found.segments or not found.words:
        return found.segments
    words = found.words
    start, end = words[0].start, words[-1].end
    return (Segment(plain(found.text), start, end, None, 0, len(words)),)
