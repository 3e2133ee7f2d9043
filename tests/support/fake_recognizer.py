"""A recogniser without a model: words that tell what it was given."""

import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from recognitions import recognition

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.recognition import Recognition

RATE = 8000
MODULE = "espnet_cif_hkd.inference.recognizer"


class FakeRecognizer:
    """One word for each 0.5 s: the level of its samples in per cent.

    Attributes:
        made: The arguments of all constructions.
        batches: Sizes of the lists that were recognised.
        long_reads: Passages that were read of long audio.
        fails_at: Level of the samples that raise a ``RuntimeError``.
        killed_at: Level of the samples that kill the process.
    """

    sampling_rate = RATE
    made: ClassVar[list[dict[str, Any]]] = []
    batches: ClassVar[list[int]] = []
    long_reads: ClassVar[list[tuple[float, float]]] = []
    fails_at = killed_at = -1

    def __init__(self, model: str, **options: Any) -> None:
        if "absent" in str(model):
            raise UserError(f"{model}: no such model")
        self.made.append({"model": model, **options})

    def recognise(self, samples: list[np.ndarray]) -> list[Recognition]:
        self.batches.append(len(samples))
        return [self._one(wave) for wave in samples]

    def _one(self, wave: np.ndarray, begin: float = 0.0) -> Recognition:
        words = []
        for at in range(0, len(wave) - RATE // 2 + 1, RATE // 2):
            level = round(100 * float(np.abs(wave[at : at + RATE // 2]).mean()))
            if level == self.fails_at:
                raise RuntimeError("the matrix\nis singular")
            if level == self.killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            start = begin + at / RATE
            words.append((f"w{level}", start, start + 0.4))
        return recognition(words, duration=begin + len(wave) / RATE)

    def long(self, read: Any, duration: float, state: Any) -> Iterator[Recognition]:
        """One result a second; the state has the number of those that are done."""
        done = int(state.read_text()) if state and state.exists() else 0
        for second in range(int(duration)):
            if second >= done:
                self.long_reads.append((second, second + 1))
            yield self._one(read(second, second + 1), second)
            if state:
                state.parent.mkdir(parents=True, exist_ok=True)
                state.write_text(str(second + 1))
        if state:
            state.unlink()

    def align(self, samples: np.ndarray, text: str) -> Recognition:
        size = len(samples) / RATE / max(1, len(text.split()))
        words = [(w, i * size, (i + 1) * size) for i, w in enumerate(text.split())]
        return recognition(words, duration=len(samples) / RATE)

    def stream(self) -> "FakeStream":
        return FakeStream(self)


class FakeStream:
    """Recognises what it has got so far."""

    def __init__(self, recognizer: FakeRecognizer) -> None:
        self.recognizer = recognizer
        self.pieces: list[np.ndarray] = []

    def accept(self, samples: np.ndarray) -> Recognition:
        self.pieces.append(samples)
        return self.finish()

    def finish(self) -> Recognition:
        return self.recognizer._one(np.concatenate(self.pieces))


def module() -> ModuleType:
    """A stand-in for the module of the recogniser, with a class of its own."""
    made = ModuleType(MODULE)
    fresh = {"made": [], "batches": [], "long_reads": []}
    made.Recognizer = type("Fake", (FakeRecognizer,), fresh)  # type: ignore[attr-defined]
    return made


def install() -> type[FakeRecognizer]:
    """Use the fake in this process; for child processes."""
    sys.modules[MODULE] = module()
    return sys.modules[MODULE].Recognizer  # type: ignore[no-any-return]
