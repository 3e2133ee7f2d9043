"""Kaldi's ``segments``: ``utterance recording begin end [channel]``, in seconds."""

import math
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_table

# Seconds that a segment may reach beyond its recording, as in Kaldi's extract-segments.
OVERSHOOT = 0.5


@dataclass(frozen=True)
class Segment:
    """A part of a recording.

    Attributes:
        utterance: name of the part.
        recording: name of the recording.
        begin: begin in seconds, 0 or more.
        end: end in seconds, or -1 for the end of the recording.
        channel: channel, counted from 0; None if the file has none.
        place: file and line, for messages.
    """

    utterance: str
    recording: str
    begin: float
    end: float
    channel: int | None
    place: str

    def check_duration(self, duration: float) -> None:
        """Check that the part is inside a recording of ``duration`` seconds.

        Raises:
            UserError: the part is outside; the message has file and line.
        """
        if self.begin >= duration or self.end > duration + OVERSHOOT:
            last = "its end" if self.end == -1 else f"{self.end:g} s"
            raise UserError(
                f"{self.place}: {self.utterance} is {self.begin:g} s to {last} of "
                f"{self.recording}, which lasts {duration:.3f} s: correct the times"
            )


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def read_segments(path: Path, recordings: Container[str]) -> list[Segment]:
    """Read and check ``segments``.

    Args:
        path: the file.
        recordings: the keys of ``wav.scp``.

    Raises:
        UserError: a line is wrong; the message has file and line.
    """
    table = read_table(path)
    segments = []
    for utterance, line in table.items():
        place, words = f"{path}, line {table.lines[utterance]}", line.split()
        if not 3 <= len(words) <= 4:
            raise UserError(
                f"{place}: {len(words) + 1} columns: write "
                "'utterance recording begin end' and, if need be, the channel"
            )
        begin, end = _number(words[1]), _number(words[2])
        channel = words[3] if len(words) == 4 else None
        if words[0] not in recordings:
            wrong = f"the recording {words[0]} is not in {path.with_name('wav.scp')}"
        elif not math.isfinite(begin) or begin < 0:
            wrong = f"the begin {words[1]} is not a number of seconds from 0"
        elif not math.isfinite(end) or (end != -1 and end <= begin):
            wrong = f"the end {words[2]} is neither after the begin {words[1]} nor -1"
        elif channel is not None and not (channel.isascii() and channel.isdigit()):
            wrong = f"the channel {channel} is not a number from 0"
        else:
            number = None if channel is None else int(channel)
            segments.append(Segment(utterance, words[0], begin, end, number, place))
            continue
        raise UserError(f"{place}: {utterance}: {wrong}: correct this line")
    return segments
