"""Kaldi data folders with noise instead of speech, and an aligner that needs none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile

from espnet_cif_hkd.teachers.lm.aligner import (
    AlignedPhone,
    AlignedUtterance,
    NoAlignmentError,
)

RATE = 11025
# Phones with and without stress: labels are those of the lexicon.
LEXICON = "she SH IY1\nsees S IY Z\nus AH0 S\nshe(2) SH\n"
PHONES = ("AH0", "IY", "IY1", "S", "SH", "Z")
TOKENS = ("<blank>", "<unk>", *PHONES, "<sos/eos>")
TEXTS = {"u1": "SHE SEES", "u2": "SEES US SHE", "u3": "us", "u4": "SHE SEES US"}


def burst(seconds: float, start: float, end: float, seed: int = 0) -> np.ndarray:
    """Return silence with noise from ``start`` to ``end``, at :data:`RATE`."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 1e-4, int(seconds * RATE))
    part = slice(int(start * RATE), int(end * RATE))
    samples[part] = rng.normal(0, 0.1, len(samples[part]))
    return samples


def vowels(seconds: float, start: float, end: float) -> np.ndarray:
    """Return silence with a synthetic AA, then IY, from ``start`` to ``end``."""
    from scipy.signal import lfilter

    samples = burst(seconds, 0, 0)
    size, at = int((end - start) / 2 * RATE), int(start * RATE)
    for formants in ((730, 1090, 2440, 3400), (270, 2290, 3010, 3600)):
        vowel = np.zeros(size)
        vowel[:: RATE // 110] = 1
        for formant, width in zip(formants, (80, 90, 120, 150)):
            radius, angle = np.exp(-np.pi * width / RATE), 2 * np.pi * formant / RATE
            vowel = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], vowel)
        samples[at : at + size] += 0.3 * vowel / np.abs(vowel).max()
        at += size
    return samples


def data_dir(folder: Path, texts: Mapping[str, str] = TEXTS) -> Path:
    """Write a data folder with a burst of noise for each text."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for n, name in enumerate(texts):
        path = folder / f"{name}.wav"
        soundfile.write(path, burst(1.2, 0.3, 0.9, seed=n), RATE)
        lines.append(f"{name} {path}\n")
    (folder / "wav.scp").write_text("".join(lines))
    table = "".join(f"{name} {text}\n" for name, text in texts.items())
    (folder / "text").write_text(table)
    return folder


class StandIn:
    """An aligner that gives each phone three states of one frame.

    Attributes:
        aligned: texts, in the order in which they were aligned.
        stop_at: number of the text at which it is interrupted.
        fails: texts that it cannot align.
    """

    stride, offset = 0.01, 0.0078
    aligned: ClassVar[list[str]] = []
    stop_at: ClassVar[int] = 10**6
    fails: ClassVar[set[str]] = set()

    def __init__(self, lexicon: Any) -> None:
        self._lexicon = lexicon

    def pronunciation(self, text: str) -> list[tuple[str, ...]]:
        found = [self._lexicon.find(word) for word in text.split()]
        if None in found:
            raise NoAlignmentError("a word has no pronunciation")
        return found

    def __call__(self, text: str, samples: np.ndarray, rate: int) -> AlignedUtterance:
        if len(self.aligned) == self.stop_at:
            raise KeyboardInterrupt
        self.aligned.append(text)
        if text in self.fails:
            raise NoAlignmentError("no alignment")
        phones = [phone for word in self.pronunciation(text) for phone in word]
        states = [
            tuple((str(3 * PHONES.index(phone) + n), 1) for n in range(3))
            for phone in phones
        ]
        aligned = [
            AlignedPhone(phone, 10 + 3 * n, states[n]) for n, phone in enumerate(phones)
        ]
        return AlignedUtterance(tuple(aligned), -1.0)
