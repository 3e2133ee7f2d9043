"""Uploads: kept under names of the server's own, checked, and read."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from espnet_cif_hkd.io.audio import resample
from espnet_cif_hkd.server.errors import ApiError
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import FloatArray

RATES = range(1000, 768_001)
_CHANNELS = 64


@dataclass(frozen=True)
class Upload:
    """An audio file that a client sent.

    Attributes:
        path: Of the file; the client has chosen neither folder nor name.
        seconds: Length according to its header.
    """

    path: Path
    seconds: float


def keep(file: BinaryIO, folder: Path, limits: Limits) -> Upload:
    """Copy an upload into a folder and check its header.

    Raises:
        ApiError: The file is empty or too long, or is no audio.
    """
    path = folder / "upload"
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)
    if path.stat().st_size == 0:
        raise _bad("the file is empty")
    try:
        header = soundfile.info(str(path))
    except (soundfile.SoundFileError, ValueError, OSError) as error:
        reason = getattr(error, "error_string", None) or type(error).__name__
        raise _bad(
            f"the file is no audio that this server can read ({reason.rstrip('.')}): "
            "send WAV, FLAC, MP3 or Ogg",
            "unknown_format",
        ) from None
    if header.samplerate not in RATES or header.channels > _CHANNELS:
        raise _bad(
            f"the file has {header.channels} channels at {header.samplerate} Hz: send "
            f"at most {_CHANNELS}, at {RATES.start} to {RATES.stop - 1} Hz"
        )
    check_length(header.duration, limits)
    return Upload(path, header.duration)


def check_length(seconds: float, limits: Limits) -> None:
    """Check the length of audio.

    Raises:
        ApiError: It is too long.
    """
    if seconds > limits.seconds:
        raise _bad(
            f"the audio has {seconds:.1f} s, more than {limits.seconds:g} s: send it "
            "in parts",
            "audio_too_long",
        )


def read(upload: Upload, rate: int) -> FloatArray:
    """Return the mean of all channels ``(S,)`` at a sampling rate in Hz.

    Raises:
        ApiError: The audio is damaged or contains NaN.
    """
    try:
        samples, own_rate = soundfile.read(str(upload.path), always_2d=True)
    except (soundfile.SoundFileError, ValueError, OSError) as error:
        reason = getattr(error, "error_string", None) or type(error).__name__
        raise _bad(f"the audio is damaged ({reason.rstrip('.')})") from None
    if not np.isfinite(samples).all():
        raise _bad("the audio contains NaN or infinity")
    return resample(samples.mean(axis=1), own_rate, rate).astype(np.float32)


def _bad(message: str, code: str = "invalid_audio") -> ApiError:
    return ApiError(400, message, code, param="file")
