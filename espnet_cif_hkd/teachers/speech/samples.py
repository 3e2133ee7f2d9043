"""Checks of the samples that a speech teacher reads, and of the vectors it gives."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.base import Recording
from espnet_cif_hkd.teachers.speech.config import SpeechConfig


def resampled(
    recording: Recording, config: SpeechConfig, rate: int, shortest: int
) -> np.ndarray:
    """Return the samples of a recording at the rate of a model, (S,) float32.

    Args:
        recording: A recording with the rate of ``config``.
        config: Options of the teacher.
        rate: Sampling rate of the model in Hz.
        shortest: Least number of samples at that rate.

    Raises:
        UserError: The recording has another rate, several channels, or is too short.
    """
    from espnet_cif_hkd.io.audio import resample

    if recording.rate != config.rate:
        raise UserError(
            f"{recording.name} has {recording.rate} Hz, but rate is {config.rate}; set "
            f"rate to {recording.rate}, or resample the recordings"
        )
    samples = np.asarray(recording.samples, dtype=np.float32)
    if samples.ndim != 1:
        raise UserError(
            f"{recording.name} has samples of the shape {samples.shape}; a teacher "
            "reads one channel"
        )
    samples = np.asarray(resample(samples, config.rate, rate), dtype=np.float32)
    if len(samples) < shortest:
        raise UserError(
            f"{recording} is shorter than one frame of teacher {config.name}, "
            f"which needs {shortest / rate:.4f} s; remove it from the data"
        )
    return samples


def check_finite(
    name: str, recordings: Sequence[Recording], vectors: Sequence[Tensor]
) -> None:
    """Check that the vectors of recordings are finite.

    Args:
        name: Name of the teacher, for the message.
        recordings: The recordings.
        vectors: (T_i, C) for each of them.

    Raises:
        UserError: A vector contains NaN or infinity.
    """
    if not vectors:
        return
    finite = torch.stack([one.isfinite().all() for one in vectors]).tolist()
    for recording, good in zip(recordings, finite, strict=True):
        if not good:
            raise UserError(
                f"teacher {name}: its vectors of {recording} contain NaN or "
                "infinity; check the audio and the teacher's weights, or set "
                "teacher_dtype: float32"
            )
