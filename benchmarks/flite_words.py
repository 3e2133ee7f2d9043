"""Sentences that flite (Debian's ``flite``) speaks, and the exact times of words."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import soundfile
from boundaries import Span

from espnet_cif_hkd.errors import UserError

_PAUSE = "pau"


def phone_times(voice: str, text: str, file: Path | str = "none") -> list[Span]:
    """Times of phones in seconds, without pauses; writes the samples to ``file``.

    Raises:
        UserError: flite is not installed.
    """
    words = ["flite", "-voice", voice, "-psdur", "-t", text.lower(), str(file)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise UserError("flite is not installed: apt-get install flite") from None
    start, found = 0.0, []
    for part in done.stdout.split():
        phone, _, end = part.rpartition(":")
        if phone != _PAUSE:
            found.append((start, float(end)))
        start = float(end)
    return found


@cache
def _phones(voice: str, word: str) -> int:
    return len(phone_times(voice, word))


def word_times(voice: str, words: Sequence[str], file: Path) -> list[Span] | None:
    """Start and end of each word in seconds; None if their phones do not add up.

    In a sentence a vowel may be reduced, but hardly ever does a phone vanish.
    """
    phones = phone_times(voice, " ".join(words), file)
    counts = [_phones(voice, word) for word in words]
    if sum(counts) != len(phones) or 0 in counts:
        return None
    found, place = [], 0
    for count in counts:
        own = phones[place : place + count]
        found.append((own[0][0], own[-1][1]))
        place += count
    return found


def sentences(
    voice: str, texts: Sequence[str]
) -> Iterator[tuple[object, int, list[str], list[Span]]]:
    """Samples, their rate, words and times of each text that can be divided."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        for text in texts:
            words = text.split()
            spans = word_times(voice, words, file)
            if spans is not None:
                samples, rate = soundfile.read(file, dtype="float32")
                yield samples, rate, words, spans
