"""Formats of speech research: CTM, Praat's TextGrid, Kaldi's text and segments."""

from collections.abc import Sequence

from espnet_cif_hkd.inference.recognition import Recognition, Token, Word
from espnet_cif_hkd.inference.units import disjoint, plain, segments_of

# Praat refuses an empty time domain.
_SHORTEST_DOMAIN = 0.001


def key(name: str) -> str:
    """Return ``name`` as a key of a table: white space becomes ``_``.

    A leading ``;`` becomes ``_``, too: CTM has comments that begin with ``;;``.
    """
    words = "_".join(name.split()) or "_"
    return f"_{words[1:]}" if words.startswith(";") else words


def segment_name(name: str, start: float, end: float) -> str:
    """Return the name of the utterance from ``start`` to ``end`` seconds.

    The times in names sort as the recording does, as Kaldi wants it.
    """
    return f"{key(name)}-{round(start * 1000):08d}-{round(end * 1000):08d}"


def ctm(found: Recognition, name: str) -> str:
    """NIST's CTM: name, channel, start, duration, word and, if known, confidence."""
    lines = []
    for word in found.words:
        start, end = round(word.start, 3), round(word.end, 3)
        text = "_".join(plain(word.text).split())
        line = f"{key(name)} 1 {start:.3f} {max(end - start, 0.001):.3f} {text}"
        if word.confidence is not None:
            line += f" {word.confidence:.4f}"
        lines.append(f"{line}\n")
    return "".join(lines)


def textgrid(found: Recognition, name: str) -> str:
    """Praat's TextGrid in the long form, with the tiers ``words`` and ``tokens``.

    Intervals have no gaps: those without text are empty. Overlapping times are cut.
    """
    end = max(found.duration, _SHORTEST_DOMAIN)
    tiers = [("words", _intervals(found.words, end))]
    tiers.append(("tokens", _intervals(found.tokens, end)))
    lines = [
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n',
        f"xmin = 0\nxmax = {_number(end)}\ntiers? <exists>\nsize = {len(tiers)}\n",
        "item []:\n",
    ]
    for number, (tier, intervals) in enumerate(tiers, 1):
        lines.append(
            f'    item [{number}]:\n        class = "IntervalTier"\n'
            f'        name = "{tier}"\n        xmin = 0\n'
            f"        xmax = {_number(end)}\n"
            f"        intervals: size = {len(intervals)}\n"
        )
        for index, (start, stop, text) in enumerate(intervals, 1):
            quoted = text.replace('"', '""')
            lines.append(
                f"        intervals [{index}]:\n"
                f"            xmin = {_number(start)}\n"
                f"            xmax = {_number(stop)}\n"
                f'            text = "{quoted}"\n'
            )
    return "".join(lines)


def kaldi_text(found: Recognition, name: str) -> str:
    """A line of Kaldi's ``text``: the name and the complete text."""
    return f"{key(name)} {plain(found.text)}".rstrip() + "\n"


def segment_texts(found: Recognition, name: str) -> str:
    """Kaldi's ``text`` for the utterances of :func:`segments`."""
    return "".join(
        f"{utterance} {plain(text)}".rstrip() + "\n"
        for utterance, _, _, text in _cut(found, name)
    )


def segments(found: Recognition, name: str) -> str:
    """Kaldi's ``segments``: utterance, recording, start and end in seconds."""
    return "".join(
        f"{utterance} {key(name)} {start:.3f} {end:.3f}\n"
        for utterance, start, end, _ in _cut(found, name)
    )


def _cut(found: Recognition, name: str) -> list[tuple[str, float, float, str]]:
    """Return utterance, start, end and text of each segment."""
    return [
        (segment_name(name, one.start, one.end), one.start, one.end, one.text)
        for one in segments_of(found)
    ]


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _intervals(
    parts: Sequence[Word | Token], end: float
) -> list[tuple[float, float, str]]:
    """Return gapless (start, end, text) from 0 to ``end``; white space is silence."""
    found: list[tuple[float, float, str]] = []
    at = 0.0
    for one, times in zip(parts, disjoint(parts)):
        start, stop = (round(seconds, 6) for seconds in times)
        start, stop, text = max(start, at), min(stop, end), plain(one.text)
        if stop <= start or not text:
            continue
        if start > at:
            found.append((at, start, ""))
        found.append((start, stop, text))
        at = stop
    if at < end or not found:
        found.append((at, end, ""))
    return found
