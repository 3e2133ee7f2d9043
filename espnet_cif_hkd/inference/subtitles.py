"""Subtitles: cues of few short lines that can be read while they are shown.

Default limits: two lines of 42 characters, or 16 where most characters are wide as in
Chinese; 5/6 to 7 seconds; 20 characters a second. The first and the longest time are
always kept. The shortest time and the speed of reading are kept where speech leaves the
time: a cue may stay until the next one starts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.units import Unit, is_wide, units_of

NARROW_LINE, WIDE_LINE = 42, 16
# Costs of a cue. A limit that is missed costs more than any style of breaking can gain.
_MISSED = 1000.0
_EACH, _NO_PAUSE, _IN_SENTENCE, _PAUSE_INSIDE = 3.0, 2.0, 1.0, 6.0
# Seconds of silence from which a new cue is better.
_PAUSE = 0.6
_SENTENCE_END = tuple(".!?。！？…")
_PHRASE_END = (*_SENTENCE_END, *",;:，、；：")


@dataclass(frozen=True)
class Limits:
    """What a cue may be.

    Attributes:
        line: Characters of a line; None: 42, or 16 if most characters are wide. In
            lines of wide characters a narrow one counts as half.
        lines: Lines of a cue.
        shortest: Least seconds of a cue, where speech allows it.
        longest: Most seconds of a cue.
        speed: Most characters a second, where speech allows it.
    """

    line: int | None = None
    lines: int = 2
    shortest: float = 5 / 6
    longest: float = 7.0
    speed: float = 20.0

    def check(self) -> None:
        """Check the limits.

        Raises:
            UserError: A limit is impossible.
        """
        if self.line is not None and self.line < 1:
            raise UserError(
                f"subtitles: {self.line} characters a line: write 1 or more"
            )
        if self.lines < 1:
            raise UserError(f"subtitles: {self.lines} lines: write 1 or more")
        if not self.speed > 0:
            raise UserError(
                f"subtitles: {self.speed:g} characters a second: write more"
            )
        if not 0 <= self.shortest < self.longest:
            raise UserError(
                f"subtitles: {self.shortest:g} to {self.longest:g} s: the shortest "
                "time must be below the longest"
            )


@dataclass(frozen=True)
class Cue:
    """One subtitle.

    Attributes:
        lines: The text.
        start, end: Seconds.
    """

    lines: tuple[str, ...]
    start: float
    end: float


def cues(found: Recognition, limits: Limits | None = None) -> list[Cue]:
    """Divide a result into subtitles.

    The division has the fewest cues that are too short or too fast to read; among
    those, breaks are at pauses and at the ends of sentences.

    Args:
        found: The result; words are never lost or repeated.
        limits: Default: see above.

    Returns:
        Cues in order of time, without overlaps.

    Raises:
        UserError: A limit is impossible.
    """
    limits = limits or Limits()
    limits.check()
    units = units_of(found)
    page = _Page.of("".join(unit.text for unit in units), limits)
    units = [part for unit in units for part in page.pieces(unit)]
    starts = [unit.start for unit in units] + [max(found.duration, 0.0)]
    # best[i]: the lowest cost of units[i:], and the index after their first cue.
    best: list[tuple[float, int]] = [(0.0, 0)] * len(units) + [(0.0, 0)]
    for first in range(len(units) - 1, -1, -1):
        best[first] = min(
            (cost + best[last][0], last)
            for cost, last in page.choices(units, first, starts)
        )
    made, first = [], 0
    while first < len(units):
        last = best[first][1]
        chosen = units[first:last]
        lines = page.wrap(chosen)
        end = page.end(chosen, starts[last], len(_joined(chosen)))
        made.append(Cue(tuple(lines), chosen[0].start, end))
        first = last
    return made


@dataclass(frozen=True)
class _Page:
    """The limits for one text."""

    limits: Limits
    line: float
    wide: bool

    @classmethod
    def of(cls, text: str, limits: Limits) -> "_Page":
        wide = 2 * sum(map(is_wide, text)) > len(text)
        return cls(limits, limits.line or (WIDE_LINE if wide else NARROW_LINE), wide)

    def width(self, text: str) -> float:
        if not self.wide:
            return len(text)
        return sum(1.0 if is_wide(char) else 0.5 for char in text)

    def pieces(self, unit: Unit) -> list[Unit]:
        """Cut a word that is longer than a line; the parts share its time."""
        texts = [""]
        for char in unit.text:
            if texts[-1] and self.width(texts[-1] + char) > self.line:
                texts.append("")
            texts[-1] += char
        step = (unit.end - unit.start) / len(texts)
        edges = [unit.start + i * step for i in range(len(texts))] + [unit.end]
        parts = [Unit(t, edges[i], edges[i + 1]) for i, t in enumerate(texts)]
        parts[0] = replace(parts[0], spaced=unit.spaced)
        parts[-1] = replace(parts[-1], closes=unit.closes)
        return parts

    def choices(
        self, units: Sequence[Unit], first: int, starts: Sequence[float]
    ) -> Iterator[tuple[float, int]]:
        """Yield (cost, index after the cue) for each possible cue from ``first``."""
        begin = units[first].start
        size = len(units[first].text)
        used, lines, inside = self.width(units[first].text), 1, _EACH
        for last in range(first + 1, len(units) + 1):
            final = units[last - 1]
            if last > first + 1:
                width = self.width(final.text)
                space = final.spaced * self.width(" ")
                if used + space + width <= self.line:
                    used += space + width
                else:
                    used, lines = width, lines + 1
                if lines > self.limits.lines or final.end - begin > self.limits.longest:
                    return
                size += final.spaced + len(final.text)
                inside += _PAUSE_INSIDE * (final.start - units[last - 2].end > _PAUSE)
                inside += _NO_PAUSE * units[last - 2].closes
            yield inside + self._cost(units[first:last], starts[last], size), last

    def _cost(self, chosen: Sequence[Unit], until: float, size: int) -> float:
        final = chosen[-1]
        seconds = self.end(chosen, until, size) - chosen[0].start
        cost = _MISSED * (seconds < self.limits.shortest - 1e-9)
        cost += _MISSED * (size > self.limits.speed * seconds + 1e-6)
        if not final.closes:
            cost += _NO_PAUSE * (until - final.end < _PAUSE)
            cost += _IN_SENTENCE * (not final.text.endswith(_SENTENCE_END))
            cost += _IN_SENTENCE * (not final.text.endswith(_PHRASE_END))
        return cost

    def end(self, chosen: Sequence[Unit], until: float, size: int) -> float:
        """Return when a cue disappears, in seconds.

        Args:
            chosen: Its words.
            until: Start of the next cue, or end of the audio, in seconds.
            size: Number of its characters.
        """
        start, spoken = chosen[0].start, chosen[-1].end
        wanted = start + max(self.limits.shortest, size / self.limits.speed)
        return min(max(spoken, min(wanted, until)), start + self.limits.longest)

    def wrap(self, chosen: Sequence[Unit]) -> list[str]:
        """Break into as few lines as possible, of similar width."""
        lines = self._filled(chosen, self.line)
        line = max(map(self.width, lines)) - 0.5
        while len(lines) > 1 and line > 0:
            tried = self._filled(chosen, line)
            if len(tried) > len(lines):
                break
            lines, line = tried, min(line, max(map(self.width, tried))) - 0.5
        return lines

    def _filled(self, chosen: Sequence[Unit], line: float) -> list[str]:
        lines = [chosen[0].text]
        for unit in chosen[1:]:
            longer = f"{lines[-1]}{' ' * unit.spaced}{unit.text}"
            if self.width(longer) <= line:
                lines[-1] = longer
            else:
                lines.append(unit.text)
        return lines


def _joined(chosen: Sequence[Unit]) -> str:
    rest = "".join(f"{' ' * unit.spaced}{unit.text}" for unit in chosen[1:])
    return chosen[0].text + rest
