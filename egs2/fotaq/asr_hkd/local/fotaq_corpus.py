"""From lines and clips to utterances: normalisation, selection and the split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fotaq_text import Line

SETS = ("train", "dev", "test")
MIN_SECONDS = 0.5
HELD_OUT_SHARE = 0.053

_NOISE = re.compile(r"<[^>]*>|\([^)]*\)")
_NOT_SPOKEN = re.compile(r"[^A-Z']+")
_LONE_APOSTROPHE = re.compile(r"(?<![A-Z])'+(?![A-Z])")


@dataclass(frozen=True)
class Clip:
    """One recording: its line, duration in seconds and the SHA-256 of its samples."""

    line: Line
    seconds: float
    digest: str


@dataclass(frozen=True)
class Utterance:
    """An entry of the Kaldi folders."""

    clip: str
    speaker: str
    words: str
    seconds: float

    @property
    def utt_id(self) -> str:
        """The speaker first: sorting by utterance also sorts by speaker."""
        return f"{self.speaker}-{self.clip}"


def normalise(text: str) -> str | None:
    """Return upper-case words of letters and apostrophes; None if it has digits.

    Noises in brackets are removed. Digits can be read in several ways, and the archive
    does not say how they were read.
    """
    spoken = _NOISE.sub(" ", text).upper()
    if re.search(r"\d", spoken):
        return None
    spoken = _NOT_SPOKEN.sub(" ", spoken)
    return " ".join(_LONE_APOSTROPHE.sub(" ", spoken).split())


def read_excluded(path: Path) -> dict[str, str]:
    """Return clip -> reason from a table of two columns separated by a tab.

    Raises:
        ValueError: a line does not have two columns.
    """
    reasons: dict[str, str] = {}
    for number, row in enumerate(path.read_text(encoding="ascii").splitlines(), 1):
        fields = row.split("\t")
        if len(fields) != 2 or not all(fields):
            raise ValueError(f"{path}:{number}: not 'clip<TAB>reason'")
        reasons[fields[0]] = fields[1]
    return reasons


def select(
    clips: Iterable[Clip], listed: dict[str, str]
) -> tuple[list[Utterance], dict[str, str]]:
    """Divide clips into utterances and left-out clips with the reason.

    Of recordings with identical samples, the last by name is kept: the others belong to
    a shortened copy of the opening scene.
    """
    ordered = sorted(clips, key=lambda clip: clip.line.clip)
    last = {clip.digest: clip.line.clip for clip in ordered}
    kept: list[Utterance] = []
    left_out: dict[str, str] = {}
    for clip in ordered:
        name = clip.line.clip
        words = normalise(clip.line.text)
        if name in listed:
            left_out[name] = listed[name]
        elif clip.seconds < MIN_SECONDS:
            left_out[name] = "short"
        elif words is None:
            left_out[name] = "digits"
        elif not words:
            left_out[name] = "wordless"
        elif last[clip.digest] != name:
            left_out[name] = "duplicate"
        else:
            kept.append(Utterance(name, clip.line.speaker, words, clip.seconds))
    return kept, left_out


def _fraction(key: str) -> float:
    digest = hashlib.sha256(key.encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """Divide by a hash of the words, so that no sentence is in two sets.

    The hash depends on nothing else, so the set of an utterance does not depend on
    other utterances.
    """
    sets: dict[str, list[Utterance]] = {name: [] for name in SETS}
    for utterance in utterances:
        place = _fraction(utterance.words)
        if place < HELD_OUT_SHARE:
            sets["dev"].append(utterance)
        elif place < 2 * HELD_OUT_SHARE:
            sets["test"].append(utterance)
        else:
            sets["train"].append(utterance)
    return sets


def subset(
    sets: dict[str, list[Utterance]], size: int, held_out: int
) -> dict[str, list[Utterance]]:
    """Return at most ``size`` training and ``held_out`` dev and test utterances.

    A hash of the clip chooses them: a larger subset contains the smaller one.
    """
    limits = {"train": size, "dev": held_out, "test": held_out}
    return {
        name: sorted(sets[name], key=lambda u: _fraction("subset " + u.clip))[:limit]
        for name, limit in limits.items()
    }
