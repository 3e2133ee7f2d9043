"""Reading one recording of a ``wav.scp``: files, pipes, segments, another rate."""

import io
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from espnet_cif_hkd.errors import UserError

# A speed change as stage 2 (and asr.sh) writes it; done here, so sox is not needed.
_SPEED = re.compile(
    r"^(?:sox (?:-t wav )?(?P<file>\S+|'[^']*') -t wav -|"
    r"(?P<pipe>.*)\| sox -t wav - -t wav -) speed (?P<factor>[0-9.]+) \|$"
)


@dataclass
class Sound:
    """Samples ``(frames,)`` or ``(frames, channels)`` float64, and their rate.

    ``file`` is set when the samples are the whole, unchanged content of that file;
    ``subtype`` then is how it stores them.
    """

    samples: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
    rate: int
    file: str | None = None
    subtype: str | None = None


def resample(samples: "np.ndarray", rate: float, wanted: float) -> "np.ndarray":
    """Band-limited resampling along the first axis, by the soxr library."""
    import soxr

    if len(samples) == 0 or rate == wanted:
        return samples
    return np.asarray(soxr.resample(samples, rate, wanted, quality="HQ"))


def _read_pipe(command: str) -> Sound:
    result = subprocess.run(
        ["bash", "-c", command.rstrip("| ")],
        capture_output=True,
        check=False,
    )
    if result.returncode != 0 or not result.stdout:
        words = result.stderr.decode("utf-8", "replace").split()
        raise ValueError(f"the command gave no audio ({' '.join(words)[:200]})")
    samples, rate = soundfile.read(io.BytesIO(result.stdout))
    return Sound(samples, rate)


def read_entry(entry: str) -> Sound:
    """Read what a line of ``wav.scp`` names: a file, or a command ending in ``|``.

    Raises:
        ValueError, RuntimeError, OSError: it cannot be read; the text says why.
    """
    if entry.endswith("|"):
        match = _SPEED.match(entry)
        if match is None:
            return _read_pipe(entry)
        if match["file"] is not None:
            inner = read_entry(shlex.split(match["file"])[0])
        else:
            inner = read_entry(match["pipe"].strip() + " |")
        factor = float(match["factor"])
        faster = resample(inner.samples, inner.rate * factor, inner.rate)
        return Sound(faster, inner.rate)
    if not Path(entry).is_file():
        raise FileNotFoundError("there is no such file")
    with soundfile.SoundFile(entry) as sound:
        samples = sound.read()
        return Sound(samples, sound.samplerate, entry, sound.subtype)


def checked(utterance: str, entry: str, sound: Sound) -> Sound:
    """Refuse audio that would poison a training.

    Raises:
        UserError: the audio is empty or contains NaN or infinity.
    """
    if len(sound.samples) == 0:
        raise UserError(f"audio of {utterance} is empty: mend or remove {entry}")
    if not np.isfinite(sound.samples).all():
        raise UserError(
            f"audio of {utterance} contains NaN or infinity: mend or remove {entry}"
        )
    return sound


def read_utterance(utterance: str, entry: str) -> Sound:
    """Read and check a line of ``wav.scp``.

    Raises:
        UserError: naming the utterance, its file and what is wrong.
    """
    try:
        sound = read_entry(entry)
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "?"
        raise UserError(
            f"audio of {utterance} cannot be read ({reason[:200]}): "
            f"mend or remove {entry}"
        ) from error
    return checked(utterance, entry, sound)


def cut(sound: Sound, begin: float, end: float) -> Sound:
    """The part between two times in seconds; ``end`` -1 means to the end."""
    last = None if end == -1 else int(end * sound.rate)
    return Sound(sound.samples[int(begin * sound.rate) : last], sound.rate)


def can_keep(sound: Sound, entry: str, audio_format: str, rate: int) -> bool:
    """Whether the dump may point to the recording itself instead of a copy."""
    return (
        sound.file is not None
        and sound.rate == rate
        and Path(entry).suffix == f".{audio_format}"
        and sound.subtype == soundfile.default_subtype(audio_format.upper())
    )


def needs_sox(entry: str) -> bool:
    """Whether ``entry`` calls sox in a way only sox can do, and sox is absent."""
    calls_sox = re.search(r"(^|[|;&\s])sox\s", entry) is not None
    return calls_sox and _SPEED.match(entry) is None and shutil.which("sox") is None
