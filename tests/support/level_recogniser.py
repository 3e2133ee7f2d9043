"""A recogniser for tests of the server: it names the level of each quarter second."""

import io
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.recognition import (
    Flag,
    Recognition,
    Segment,
    Token,
    Word,
)

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RATE = 8000
BLOCK = RATE // 4


class LevelRecogniser:
    """Words are ``zero`` to ``nine``: ten times the level of a block, which is also
    the confidence. A ``six`` has a warning.

    ``go`` holds the decoding thread while it is clear; ``started`` counts calls,
    ``long_started`` those with long audio.
    """

    sampling_rate = RATE

    def __init__(self, streams=True):
        self.go = threading.Event()
        self.go.set()
        self.started = self.long_started = self.passages = 0
        self.at_once = self.most_at_once = 0
        self.streams = streams

    def recognise(self, samples):
        self.started += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.go.wait(20)
            if len(samples) and np.abs(samples).max() >= 0.99:
                raise UserError("/secret/folder/model.pth: too loud\nfor this model")
            return self._found(samples)
        finally:
            self.at_once -= 1

    def stream(self):
        if not self.streams:
            raise UserError("this model was trained without chunks: it cannot stream")
        return LevelStream(self)

    def long(self, read, duration):
        self.long_started += 1
        for i in range(int(np.ceil(duration))):
            assert self.go.wait(20)
            self.passages += 1
            found = self._found(read(i, min(i + 1.0, duration)))
            yield later(found, float(i), duration)

    def alphas(self, samples):
        n = len(samples) // BLOCK
        edges = 0.25 * np.arange(n + 1)
        alpha = 0.5 + 0.5 * (np.arange(n) % 2)
        return SimpleNamespace(edges=edges, alpha=alpha, firings=edges[1:] - 0.05)

    def _found(self, samples):
        assert samples.dtype == np.float32 and samples.ndim == 1
        blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
        levels = np.rint(10 * np.sqrt((blocks**2).mean(1))).astype(int)
        tokens, words = [], []
        for i, level in enumerate(levels):
            name, start, end = NAMES[level], 0.25 * i, 0.25 * (i + 1)
            spaced = f" {name}" if i else name
            sure = level / 10
            tokens.append(Token(spaced, f"▁{name}", int(level), start, end, sure))
            words.append(Word(name, start, end, sure, i, i + 1))
        text = "".join(token.text for token in tokens)
        segments = ()
        if words:
            segments = (Segment(text, 0.0, words[-1].end, 0.5, 0, len(words)),)
        duration = len(samples) / RATE
        return Recognition(
            text,
            tuple(tokens),
            tuple(words),
            segments,
            duration,
            flags=tuple(
                Flag("missing", token.start, token.end, 0.8)
                for token in tokens
                if token.text.strip() == "six"
            ),
        ).validate()


def later(found, seconds, duration):
    """A result whose times are later."""

    def moved(parts):
        return tuple(
            replace(one, start=one.start + seconds, end=one.end + seconds)
            for one in parts
        )

    return replace(
        found,
        tokens=moved(found.tokens),
        words=moved(found.words),
        segments=moved(found.segments),
        duration=duration,
    )


class LevelStream:
    """Recognises complete blocks."""

    def __init__(self, model):
        self._model = model
        self._heard = np.zeros(0, dtype=np.float32)

    def accept(self, samples):
        self._heard = np.concatenate([self._heard, samples])
        return self._model._found(self._heard)

    def finish(self):
        return self._model._found(self._heard)


def levels(*wanted, rate=RATE):
    """Samples of blocks of a quarter second with these levels, in tenths."""
    return np.repeat(np.asarray(wanted) / 10, rate // 4)


def audio_file(samples, rate=RATE, form="WAV", subtype=None):
    """The bytes of an audio file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()
