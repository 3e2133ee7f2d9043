"""Mandarin for miniature corpora: recorded syllables where they are to be had.

The recordings are Debian's ``gcin-voice`` (single syllables, two speakers; GPL-3 or
LGPL-3, and CC-BY-3), strung together by the pinyin of the sentences of PyPI's
``hsk-sentences-audio`` (CC-BY-SA-4.0), as the recipe egs2/hsk does it. Both are fetched
into a cache, checked, and never committed. Without them every character becomes a tone
of its own.
"""

import importlib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_cif_hkd.errors import UserError

# The recipe that makes a complete corpus of this speech has the code.
_LOCAL = Path(__file__).parents[3] / "egs2" / "hsk" / "asr_hkd" / "local"
if str(_LOCAL) not in sys.path:
    sys.path.insert(0, str(_LOCAL))

import hsk_packages  # noqa: E402
import hsk_sentences  # noqa: E402
import hsk_voice  # noqa: E402

RATE = hsk_voice.RATE
TONES = "tones"
_TIMEOUT = 60.0

# For those who have no packages, and for tests that must not wait for any.
_PLAIN = (
    "今天天气很好",
    "你好世界",
    "我们明天去学校",
    "他喜欢吃苹果",
    "老师在教室里",
    "我想喝一杯水",
    "请问你叫什么名字",
    "这个东西多少钱",
    "她昨天没有来",
    "我的朋友是医生",
    "现在几点了",
    "他们在看电影",
)


@dataclass(frozen=True)
class Clip:
    """One recording: its words, and ``(samples,)`` float64 at 16 kHz."""

    words: str
    samples: np.ndarray


def _tone(character: str) -> np.ndarray:
    code = ord(character)
    times = np.arange(int(0.25 * RATE)) / RATE
    low, high = 200 + 37 * (code % 29), 1500 + 53 * (code // 29 % 41)
    wave = np.sin(2 * np.pi * low * times) + 0.7 * np.sin(2 * np.pi * high * times)
    return 0.2 * wave * np.hanning(len(times))


def _with_room(pieces: list[np.ndarray], seed: int) -> np.ndarray:
    """Pieces in a row between two short silences, with a little noise."""
    rng = np.random.default_rng(seed)
    pause = np.zeros(int(0.1 * RATE))
    wave = np.concatenate([pause, *pieces, pause])
    return np.clip(wave + 0.001 * rng.standard_normal(len(wave)), -0.99, 0.99)


def tones(count: int) -> list[Clip]:
    """``count`` clips of artificial tones, one tone a character."""
    return [
        Clip(words, _with_room([_tone(character) for character in words], number))
        for number in range(count)
        for words in [_PLAIN[number % len(_PLAIN)]]
    ]


def spoken(folder: Path, count: int, longest: int = 12) -> list[Clip]:
    """``count`` clips of real syllables; voices take turns.

    Args:
        folder: where both packages are, or are fetched to.
        count: how many; fewer if the sentences do not suffice.
        longest: characters of the longest sentence taken.

    Raises:
        UserError: a package cannot be fetched or read.
    """
    wheel, deb = (
        hsk_packages.obtain(package, folder, _TIMEOUT)
        for package in (hsk_packages.SENTENCES, hsk_packages.VOICE)
    )
    recordings = hsk_voice.Recordings(deb)
    clips: list[Clip] = []
    for sentence in hsk_sentences.read_sentences(wheel)[0]:
        if len(clips) == count:
            break
        if len(sentence.words) > longest:
            continue
        voice = ("3", "5")[len(clips) % 2]
        wave = hsk_voice.voice_sentence(recordings, sentence, voice)
        if isinstance(wave, np.ndarray):
            clips.append(Clip(sentence.words, wave))
    return clips


def mandarin(count: int) -> list[Clip]:
    """Real syllables if their packages are or can be had, else announced tones.

    ``MINIATURE_SPEECH`` names the folder of the packages, or is ``tones``.
    """
    given = os.environ.get("MINIATURE_SPEECH", "")
    if given == TONES:
        return tones(count)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(given) if given else home / "espnet_cif_hkd" / "miniature_speech"
    try:
        importlib.import_module("soundfile")
        clips = spoken(folder, count)
    except (OSError, ImportError, UserError) as error:
        clips = []
        warnings.warn(
            f"no recorded Mandarin ({error}): the miniature corpus is ARTIFICIAL TONES",
            stacklevel=2,
        )
    return clips or tones(count)
