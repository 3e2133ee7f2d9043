"""Constant waves, and the command transcribe with the model of fake_recognizer."""

from pathlib import Path

import numpy as np
import soundfile
from fake_recognizer import RATE

from espnet_cif_hkd.cli import transcribe


def wave(folder: Path, name: str, level: int, seconds: float = 0.5, rate=RATE) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), level / 100), rate)
    return path


def run(*args) -> int:
    words = [str(arg) for arg in args]
    return transcribe.main([*words, "--model", "m", "--device", "cpu"])
