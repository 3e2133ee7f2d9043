"""What the thread of the worker does for a file: read, recognise, compute a picture."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.joining import Joiner
from espnet_cif_hkd.inference.media import Audio, open_audio
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.server.audio import bad_audio, check_length
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import FloatArray, Recogniser


@dataclass(frozen=True)
class Decoded:
    """The result for a file.

    Attributes:
        found: Text, times and confidences.
        notes: Conversions of the audio, and doubts about it.
        alphas: Lists ``edges``, ``alpha`` and ``firings``; None: not computed.
    """

    found: Recognition
    notes: list[str]
    alphas: dict[str, list[float]] | None


def decode(
    model: Recogniser, path: Path, limits: Limits, with_alphas: bool
) -> Generator[None, None, Decoded]:
    """Recognise a file in one step, or long audio in a step for each passage.

    Args:
        model: It reads and recognises at its own sampling rate.
        path: The file.
        limits: Longer files are recognised in windows if the model can.
        with_alphas: Whether to compute a picture, unless the file is long.

    Returns:
        The result, when the generator ends.

    Raises:
        ApiError: The audio is wrong.
    """
    try:
        with open_audio(path, model.sampling_rate) as audio:
            if audio.duration > limits.long_above and hasattr(model, "long"):
                found = yield from _windows(model, audio)
                audio.note_doubts()
                return Decoded(found, audio.notes, None)
            samples = _samples(audio, limits)
            found = model.recognise(samples)
            alphas = None
            if with_alphas and found.duration <= limits.picture_seconds:
                alphas = _alphas(model, samples)
            return Decoded(found, audio.notes, alphas)
    except UserError as error:
        message = str(error).removeprefix(f"{path}: ").replace(str(path), "the file")
        raise bad_audio(f"the audio cannot be recognised: {message}") from None


def _windows(model: Any, audio: Audio) -> Generator[None, None, Recognition]:
    joiner = Joiner()
    for passage in model.long(audio.read, audio.duration):
        joiner.add(passage)
        yield
    return joiner.result(audio.duration)


def _samples(audio: Audio, limits: Limits) -> FloatArray:
    blocks: list[FloatArray] = []
    length = 0
    for block in audio.blocks():
        blocks.append(block)
        length += len(block)
        check_length(length / audio.rate, limits)
    return np.concatenate(blocks)


def _alphas(model: Any, samples: FloatArray) -> dict[str, list[float]] | None:
    curve = model.alphas(samples) if hasattr(model, "alphas") else None
    if curve is None:
        return None
    names = ("edges", "alpha", "firings")
    values = {name: np.asarray(getattr(curve, name), np.float64) for name in names}
    return {name: one.round(4).tolist() for name, one in values.items()}
