"""Read recordings of ``wav.scp``: files, commands, channels, sampling rates."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import first_few

# If more than this share of the samples is outside of full scale, or one sample by more
# than this factor, the audio has another scale; otherwise it is clipped.
_MOST_CLIPPED = 0.01
_HIGHEST_PEAK = 10.0

# A speed change in the form of stage 2 and asr.sh; it is computed here, without sox.
_SPEED = re.compile(
    r"^(?:sox (?:-t wav )?(?P<file>\S+|'[^']*') -t wav -|"
    r"(?P<pipe>.*)\| sox -t wav - -t wav -) speed (?P<factor>[0-9.]+) \|$"
)


@dataclass
class Sound:
    """Samples ``(S,)`` or ``(S, C)`` float64, and their sampling rate in Hz.

    ``file`` is set if the samples are the complete, unchanged content of that file;
    ``subtype`` is then its sample format. ``clipped`` counts samples outside of ±1.
    """

    samples: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
    rate: int
    file: str | None = None
    subtype: str | None = None
    clipped: int = 0

    @property
    def channels(self) -> int:
        return 1 if self.samples.ndim == 1 else self.samples.shape[1]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass
class Header:
    """Header of a recording, with the field names of :class:`Sound`."""

    channels: int
    seconds: float
    rate: int
    file: str
    subtype: str


def resample(samples: "np.ndarray", rate: float, wanted: float) -> "np.ndarray":
    """Resample along the first axis, band-limited, by the soxr library."""
    if len(samples) == 0 or rate == wanted:
        return samples
    import soxr

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
    """Read an entry of ``wav.scp``: a file, or a command that ends with ``|``.

    Raises:
        ValueError, RuntimeError, OSError: the entry cannot be read.
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
    if not os.path.isfile(entry):
        raise FileNotFoundError("there is no such file")
    with soundfile.SoundFile(entry) as sound:
        samples = sound.read()
        return Sound(samples, sound.samplerate, entry, sound.subtype)


def read_header(utterance: str, entry: str) -> Header | None:
    """Read the header of a file, also if its speed will be changed.

    Returns:
        The header; None for a command.

    Raises:
        UserError: the file is missing or is no audio.
    """
    match = _SPEED.match(entry)
    if entry.endswith("|") and (match is None or match["file"] is None):
        return None
    file = entry if match is None else shlex.split(match["file"])[0]
    with _named(utterance, entry):
        if not os.path.isfile(file):
            raise FileNotFoundError("there is no such file")
        found = soundfile.info(file)
    speed = 1.0 if match is None else float(match["factor"])
    changed = "" if match else file
    seconds = found.duration / speed
    return Header(found.channels, seconds, found.samplerate, changed, found.subtype)


@contextlib.contextmanager
def _named(utterance: str, entry: str) -> Iterator[None]:
    """Turn an error while reading ``entry`` into a ``UserError``."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "?"
        raise UserError(
            f"audio of {utterance} cannot be read ({reason[:200]}): "
            f"correct or remove {entry}"
        ) from error


def checked(utterance: str, entry: str, sound: Sound) -> Sound:
    """Return ``sound`` if its samples are valid.

    Raises:
        UserError: the audio is empty or contains NaN or infinity.
    """
    if len(sound.samples) == 0:
        raise UserError(f"audio of {utterance} is empty: correct or remove {entry}")
    if not np.isfinite(sound.samples).all():
        raise UserError(
            f"audio of {utterance} contains NaN or infinity: correct or remove {entry}"
        )
    return sound


def scale_of_integers(samples: "np.ndarray") -> int | None:
    """Return the full scale of floating-point samples that seem to hold integers.

    Returns:
        2¹⁵ or 2³¹; None for samples in -1 to 1, also if some of them exceed it.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if peak <= 1 or (peak <= _HIGHEST_PEAK and not (samples == np.rint(samples)).all()):
        return None
    return 2**15 if peak <= 2**15 else 2**31


def _check_scale(utterance: str, entry: str, sound: Sound) -> None:
    """Count samples outside of ±1 in floating-point audio; refuse another scale."""
    level = np.abs(sound.samples)
    sound.clipped = int(np.count_nonzero(level > 1))
    if not sound.clipped:
        return
    peak, share = float(level.max()), sound.clipped / level.size
    scale = scale_of_integers(sound.samples)
    if scale is None and share <= _MOST_CLIPPED:
        return
    fix = "reduce its level"
    if scale is not None:
        fix = f"it seems to hold integers: divide its samples by {scale}"
    raise UserError(
        f"audio of {utterance}: {100 * share:.3g} % of its samples are outside -1 to 1 "
        f"(up to {peak:g}) and would be clipped: {fix}, in {entry}"
    )


def read_utterance(utterance: str, entry: str) -> Sound:
    """Read and check an entry of ``wav.scp``.

    Raises:
        UserError: the audio cannot be read or is wrong; the message has the utterance
            and the file.
    """
    with _named(utterance, entry):
        sound = checked(utterance, entry, read_entry(entry))
    _check_scale(utterance, entry, sound)
    return sound


def select_channel(sound: Sound, channel: str, name: str) -> Sound:
    """Select one channel, or the mean of all channels.

    Args:
        sound: a recording; with one channel it is returned unchanged.
        channel: a number from 0, ``mean``, or empty to keep all channels.
        name: name of the recording, for the message.

    Raises:
        UserError: there is no such channel.
    """
    if sound.channels == 1 or not channel:
        return sound
    if channel != "mean" and int(channel) >= sound.channels:
        raise UserError(
            f"{name}: no channel {channel}: the {sound.channels} channels are "
            "counted from 0"
        )
    samples = sound.samples
    one = samples.mean(axis=1) if channel == "mean" else samples[:, int(channel)]
    return Sound(one, sound.rate)


def check_channels(channels: Mapping[str, int], place: Path) -> None:
    """Check that all recordings have the same number of channels, as batches need.

    Args:
        channels: number of channels by utterance or recording.
        place: the table that lists them.

    Raises:
        UserError: the numbers differ; the message names recordings of the rarer number.
    """
    numbers = sorted(set(channels.values()), key=list(channels.values()).count)
    if len(numbers) > 1:
        rare = [name for name, count in channels.items() if count == numbers[0]]
        raise UserError(
            f"{place}: {first_few(rare)} with {numbers[0]} channels among recordings "
            f"with {numbers[-1]}: run stage 3 with --channel 0 (or another number), or "
            "--channel mean"
        )


def cut(sound: Sound, begin: float, end: float) -> Sound:
    """Return the part between two times in seconds; ``end`` -1 means to the end."""
    last = None if end == -1 else int(end * sound.rate)
    return Sound(sound.samples[int(begin * sound.rate) : last], sound.rate)


def can_keep(sound: Sound | Header, entry: str, audio_format: str, rate: int) -> bool:
    """Whether the dump can refer to the recording instead of a copy."""
    return (
        sound.rate == rate
        and sound.file == entry
        and Path(entry).suffix == f".{audio_format}"
        and sound.subtype == soundfile.default_subtype(audio_format.upper())
    )


def needs_sox(entry: str) -> bool:
    """Whether ``entry`` needs the program sox, and sox is not installed."""
    calls_sox = re.search(r"(^|[|;&\s])sox\s", entry) is not None
    return calls_sox and _SPEED.match(entry) is None and shutil.which("sox") is None
