"""The sentences: characters, syllables, pauses, and the division into sets."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsk_pinyin import sandhi

from espnet_cif_hkd.errors import UserError

SETS = ("train", "dev", "test")
HELD_OUT_SHARE = 0.07
_MEMBER = "hsk_sentences_audio/data/sentences.json"
_CHARACTER = "\u4e00-\u9fff"
_SHORT_STOPS = "，、；："
_LONG_STOPS = "。！？"
_SILENT = "“”"
_TEXT = re.compile(f"[{_CHARACTER}{_SHORT_STOPS}{_LONG_STOPS}{_SILENT}]+")


@dataclass(frozen=True)
class Sentence:
    """One sentence of n characters.

    Attributes:
        name: the package's id.
        words: the characters without punctuation.
        pinyin: n syllables with the spoken tones.
        dictionary: n syllables with the tones of the package.
        stops: n, what follows each character: 0 nothing, 1 a comma, 2 a full stop.
    """

    name: str
    words: str
    pinyin: tuple[str, ...]
    dictionary: tuple[str, ...]
    stops: tuple[int, ...]


def read_sentences(wheel: Path) -> tuple[list[Sentence], dict[str, str]]:
    """Read the package's sentences.

    Returns:
        Sentences in the order of the package; and the reason by name for those left
        out: "writing" (not only Chinese characters and punctuation), "pinyin" (not one
        syllable per character), "duplicate" (the characters of an earlier sentence).

    Raises:
        UserError: the wheel or its list of sentences has an unexpected format.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            rows = json.loads(archive.read(_MEMBER))
        return _select(rows)
    except (zipfile.BadZipFile, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{wheel}: no list of sentences ({error!r})") from None


def _select(rows: list[dict[str, Any]]) -> tuple[list[Sentence], dict[str, str]]:
    kept: dict[str, Sentence] = {}
    left_out: dict[str, str] = {}
    for row in rows:
        name, written = row["id"], row["chinese"]
        pinyin = row["pinyin_numbered"].split()
        words = re.sub(f"[^{_CHARACTER}]", "", written)
        if not words or not _TEXT.fullmatch(written):
            left_out[name] = "writing"
        elif len(words) != len(pinyin):
            left_out[name] = "pinyin"
        elif words in kept:
            left_out[name] = "duplicate"
        else:
            stops = _stops(written)
            ends = _ends_of_words(token["word"] for token in row["tokens"])
            breaks = [stop > 0 for stop in stops]
            spoken = tuple(sandhi(words, pinyin, breaks, ends))
            kept[words] = Sentence(name, words, spoken, tuple(pinyin), tuple(stops))
    return list(kept.values()), left_out


def _stops(written: str) -> list[int]:
    stops: list[int] = []
    for sign in written:
        if re.match(f"[{_CHARACTER}]", sign):
            stops.append(0)
        elif stops:
            stops[-1] = max(
                stops[-1], (sign in _SHORT_STOPS) + 2 * (sign in _LONG_STOPS)
            )
    return stops


def _ends_of_words(tokens: Iterable[str]) -> list[bool]:
    """For each character, whether it ends a word of several characters."""
    ends: list[bool] = []
    for token in tokens:
        word = re.sub(f"[^{_CHARACTER}]", "", token)
        ends += [len(word) > 1 and at + 1 == len(word) for at in range(len(word))]
    return ends


def fraction(text: str) -> float:
    """A number in [0, 1) that depends on ``text`` only."""
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return int(digest[:12], 16) / 16**12


def split(sentences: Iterable[Sentence]) -> dict[str, list[Sentence]]:
    """Divide by a hash of the characters, so that no sentence is in two sets."""
    sets: dict[str, list[Sentence]] = {name: [] for name in SETS}
    for sentence in sentences:
        place = fraction(sentence.words)
        if place < HELD_OUT_SHARE:
            sets["dev"].append(sentence)
        elif place < 2 * HELD_OUT_SHARE:
            sets["test"].append(sentence)
        else:
            sets["train"].append(sentence)
    return sets


def subset(
    sets: dict[str, list[Sentence]], size: int, held_out: int
) -> dict[str, list[Sentence]]:
    """Return at most ``size`` training and ``held_out`` dev and test sentences.

    A hash of the name chooses them: a larger subset contains the smaller one.
    """
    limits = {"train": size, "dev": held_out, "test": held_out}
    return {
        name: sorted(sets[name], key=lambda s: fraction("subset " + s.name))[:limit]
        for name, limit in limits.items()
    }
