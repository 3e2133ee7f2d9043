"""Error rates of a data directory for the benchmarks of trained models."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from espnet_cif_hkd.inference.recognizer import Recognizer  # noqa: E402
from espnet_cif_hkd.io.audio import read_utterance, resample  # noqa: E402
from espnet_cif_hkd.io.tables import read_table, read_text  # noqa: E402
from espnet_cif_hkd.recipe.stages.sclite import align  # noqa: E402

Frames = list[torch.Tensor]


@dataclass(frozen=True)
class Spoken:
    """An utterance: its name, entry of ``wav.scp``, samples (S,), and text."""

    name: str
    entry: str
    samples: np.ndarray
    text: str


def load(folder: Path, rate: int, count: int | None = None) -> list[Spoken]:
    """Utterances of a data directory at a sampling rate, the first ``count`` or all."""
    audio = read_table(folder / "wav.scp")
    texts = read_text(folder / "text")
    found = []
    for name in list(audio)[:count]:
        sound = read_utterance(name, audio[name])
        samples = resample(sound.samples, sound.rate, rate).astype(np.float32)
        found.append(Spoken(name, audio[name], samples, texts[name]))
    return found


def encoded(
    recognizer: Recognizer, folder: Path, count: int | None = None
) -> tuple[Frames, list[str]]:
    """Encoder frames (T, D) and texts of a data directory."""
    spoken = load(folder, recognizer.sampling_rate, count)
    encode = recognizer.speech2text.encode
    frames = [encode([torch.from_numpy(one.samples)])[0] for one in spoken]
    return frames, [one.text for one in spoken]


def opened(model: str, beam_size: int | None, **options: Any) -> Recognizer:
    """The recogniser of a model; without a beam size its search is greedy."""
    greedy = beam_size is None
    return Recognizer(model, greedy=greedy, beam_size=beam_size or 5, **options)


class Errors:
    """Errors of each utterance, of characters without spaces, or of words.

    Args:
        references: Texts.
        hypotheses: Texts that were recognised.
        words: Count words.

    Attributes:
        alignments: Of each utterance.
    """

    def __init__(
        self,
        references: Sequence[str],
        hypotheses: Sequence[str],
        words: bool = False,
    ) -> None:
        def split(text: str) -> list[str]:
            return text.split() if words else list(text.replace(" ", ""))

        self.alignments = [
            align(split(text), split(one))
            for text, one in zip(references, hypotheses, strict=True)
        ]
        self.n_tokens = np.array([one.n_ref for one in self.alignments])
        self.errors = np.array([one.errors for one in self.alignments])

    @property
    def rate(self) -> float:
        """In percent."""
        return 100 * float(self.errors.sum() / self.n_tokens.sum())

    def minus(self, other: "Errors") -> str:
        """Difference of the rates in points, and its interval of 95 %."""
        return _interval(self.errors - other.errors, self.n_tokens)


def compared(
    ways: Mapping[str, Callable[[Spoken], str]], spoken: Sequence[Spoken], rate: int
) -> list[list[object]]:
    """Recognise utterances in several ways, one after the other.

    Args:
        ways: Each returns a text.
        spoken: At a sampling rate of ``rate`` Hz.
        rate: In Hz.

    Returns:
        Of each way: name, CER in percent, difference to the first one, number of other
        texts than those of the first one, seconds of the process for an hour of audio.
    """
    hours = sum(len(one.samples) for one in spoken) / rate / 3600
    rows: list[list[object]] = []
    first: list[str] = []
    for name, way in ways.items():
        start = time.process_time()
        texts = [way(one) for one in spoken]
        seconds = time.process_time() - start
        errors = Errors([one.text for one in spoken], texts)
        if not rows:
            first, reference = texts, errors
        rows.append(
            [
                name,
                f"{errors.rate:.2f}",
                errors.minus(reference) if rows else "–",
                sum(a != b for a, b in zip(texts, first, strict=True)),
                f"{seconds / hours:.0f}",
            ]
        )
    return rows


def _interval(errors: np.ndarray, n_tokens: np.ndarray, draws: int = 1000) -> str:
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(errors), size=(draws, len(errors)))
    rates = 100 * errors[drawn].sum(1) / n_tokens[drawn].sum(1)
    low, high = np.percentile(rates, [2.5, 97.5])
    value = 100 * errors.sum() / n_tokens.sum()
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"
