"""Subtitle files: SubRip, WebVTT, and Whisper's table of segments."""

import re

from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.subtitles import Cue, Limits, cues
from espnet_cif_hkd.inference.units import plain, segments_of


def clock(seconds: float, point: str) -> str:
    """Return ``HH:MM:SS,mmm``; ``point`` is the decimal separator."""
    rest, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(rest, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{point}{thousandths:03d}"


def srt(found: Recognition, name: str, limits: Limits | None = None) -> str:
    """SubRip. An arrow ``-->`` in the text becomes ``->``: the format has no escape."""
    blocks = (
        f"{number}\n{_times(cue, ',')}\n{_unarrowed(cue)}\n"
        for number, cue in enumerate(cues(found, limits), 1)
    )
    return "\n".join(blocks)


def vtt(found: Recognition, name: str, limits: Limits | None = None) -> str:
    """WebVTT. ``&``, ``<`` and ``>`` in the text are escaped."""
    blocks = (f"{_times(cue, '.')}\n{_escaped(cue)}\n" for cue in cues(found, limits))
    return "\n".join(["WEBVTT\n", *blocks])


def tsv(found: Recognition, name: str) -> str:
    """Start and end in milliseconds and text of each segment, as Whisper writes it."""
    lines = ["start\tend\ttext\n"]
    for one in segments_of(found):
        start, end = round(one.start * 1000), round(one.end * 1000)
        lines.append(f"{start}\t{end}\t{plain(one.text)}\n")
    return "".join(lines)


def _times(cue: Cue, point: str) -> str:
    return f"{clock(cue.start, point)} --> {clock(cue.end, point)}"


def _unarrowed(cue: Cue) -> str:
    return "\n".join(re.sub("--+>", "->", line) for line in cue.lines)


def _escaped(cue: Cue) -> str:
    text = "\n".join(cue.lines)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
