"""Uploads: kept under names of the server's own, and checked."""

import shutil
from pathlib import Path
from typing import IO

from espnet_cif_hkd.server.errors import ApiError
from espnet_cif_hkd.server.limits import Limits

RATES = range(1000, 768_001)
_CHANNELS = 64


def keep(file: IO[bytes], folder: Path, limits: Limits) -> Path:
    """Copy an upload into a folder and check its header.

    Returns:
        The path; the client has chosen neither folder nor name.

    Raises:
        ApiError: The file is empty or too long, or is no audio.
    """
    import soundfile

    path = folder / "upload"
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)
    if path.stat().st_size == 0:
        raise bad_audio("the file is empty")
    try:
        header = soundfile.info(str(path))
    except (soundfile.SoundFileError, ValueError, OSError) as error:
        reason = getattr(error, "error_string", None) or type(error).__name__
        raise bad_audio(
            f"the file is no audio that this server reads ({reason.rstrip('.')}): send "
            "WAV, FLAC, MP3 or Ogg",
            "unknown_format",
        ) from None
    if header.samplerate not in RATES or header.channels > _CHANNELS:
        raise bad_audio(
            f"the file has {header.channels} channels at {header.samplerate} Hz: send "
            f"at most {_CHANNELS}, at {RATES.start} to {RATES.stop - 1} Hz"
        )
    check_length(header.duration, limits)
    return path


def check_length(seconds: float, limits: Limits) -> None:
    """Check the length of audio.

    Raises:
        ApiError: It is too long.
    """
    if seconds > limits.seconds:
        raise bad_audio(
            f"the audio has {seconds:.1f} s, more than {limits.seconds:g} s: send it "
            "in parts",
            "audio_too_long",
        )


def bad_audio(message: str, code: str = "invalid_audio") -> ApiError:
    """Return the error for audio that is wrong."""
    return ApiError(400, message, code, param="file")
