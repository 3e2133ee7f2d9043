"""Audio files for a recogniser: any format, rate and number of channels.

The files are those that libsndfile reads. Samples come as float32 at the rate that the
model needs, one channel, in blocks, so that the length of a file does not matter.
"""

import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.errors import UserError, one_line

Samples: TypeAlias = npt.NDArray[np.float32]

# Seconds that a decoder of compressed audio may give less than its header says.
_TOLERANCE = 0.1
# Seconds around a passage that the resampler reads, too.
_MARGIN = 0.1
# Below this peak (-90 dB of full scale) nothing can be heard.
_SILENCE = 10 ** (-90 / 20)
# The mean of channels has less than this share of their level if they cancel out.
_CANCELLED = 0.05
# Sizes in the header of a wav file from here on mean that the size is unknown.
_UNKNOWN_SIZE = 0x7FFF0000
# What users try, and libsndfile does not read.
_NEEDS_FFMPEG = frozenset(
    (
        *(".aac", ".ac3", ".amr", ".asf", ".avi", ".flv", ".m4a", ".m4b"),
        *(".mkv", ".mov", ".mp4", ".mpeg", ".webm", ".wma"),
    )
)


class Audio:
    """An open audio file.

    Args:
        path: The file.
        rate: Sampling rate of the samples in Hz.
        channel: ``mean`` of all channels, or the number of one from 0.

    Attributes:
        name: The path, for messages.
        rate: The rate that was asked for, in Hz.
        duration: Seconds, by the header of the file.
        notes: One line about each conversion that the audio needs, and each doubt about
            its content that was found so far.

    Raises:
        UserError: The file cannot be read, is empty, or has no such channel.
    """

    def __init__(self, path: str | Path, rate: int, channel: str = "mean") -> None:
        self.name, self.rate = str(path), rate
        self._file = _opened(Path(path))
        file = self._file
        self.duration = file.frames / file.samplerate
        self.notes: list[str] = []
        self._peak = 0.0
        self._levels = 0.0, 0.0
        self._from_start = False
        try:
            self._channel = self._checked_channel(channel)
            if not file.frames:
                raise UserError(
                    f"{path}: has no samples: remove it, or record it again"
                )
        except UserError:
            self.close()
            raise
        if file.channels > 1:
            which = "their mean" if self._channel is None else f"channel {channel}"
            self.notes.append(f"{file.channels} channels: {which} is used")
        if file.samplerate != rate:
            _check_soxr(self.name, file.samplerate, rate)
            self.notes.append(f"{file.samplerate} Hz is resampled to {rate} Hz")
        if file.samplerate < rate:
            self.notes.append(
                f"{file.samplerate} Hz has no frequencies above "
                f"{file.samplerate // 2} Hz, which the model knows: expect more errors"
            )

    def _checked_channel(self, channel: str) -> int | None:
        if channel == "mean":
            return None
        if not channel.isdecimal():
            raise UserError(f"channel {channel!r}: write mean, or a number from 0")
        if int(channel) >= self._file.channels:
            raise UserError(
                f"{self.name}: no channel {channel}: its {self._file.channels} "
                "channels count from 0"
            )
        return int(channel)

    def __enter__(self) -> "Audio":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self, seconds: float = 30.0) -> Iterator[Samples]:
        """Yield the audio from its beginning in blocks of about ``seconds``.

        Yields:
            Samples ``(S,)`` at :attr:`rate`; joined they are the complete audio.

        Raises:
            UserError: The file cannot be read to its end, or a sample is NaN or
                infinite.
        """
        file = self._file
        source, got = file.samplerate, 0
        resample = _resampler(source, self.rate)
        size = max(1, round(seconds * source))
        self._seek(0)
        while len(block := self._read(size, got / source)):
            got += len(block)
            yield resample(block, False)
        yield resample(np.zeros(0, np.float32), True)
        self._require_end(got, file.frames)
        self.note_doubts()

    def samples(self) -> Samples:
        """Return the complete audio: ``(S,)`` at :attr:`rate`.

        Raises:
            UserError: See :meth:`blocks`.
        """
        return np.concatenate(list(self.blocks()))

    def read(self, start: float, end: float) -> Samples:
        """Return the samples from ``start`` to ``end`` in seconds; calls in any order.

        Returns:
            ``(S,)`` at :attr:`rate`; the first one is sample ``round(start · rate)`` of
            the audio. Fewer than asked for at the end of the file.

        Raises:
            UserError: See :meth:`blocks`.
        """
        source, rate = self._file.samplerate, self.rate
        first, last = max(0, round(start * rate)), round(end * rate)
        margin = 0.0 if source == rate else _MARGIN
        begin = max(0, int((first / rate - margin) * source))
        # A multiple of the rates' period, so that both grids have a sample there.
        begin -= begin % (source // math.gcd(source, rate))
        stop = min(self._file.frames, round((last / rate + margin) * source))
        if stop <= begin or last <= first:
            return np.zeros(0, np.float32)
        self._seek(begin)
        block = self._read(stop - begin, begin / source)
        self._require_end(begin + len(block), stop)
        out = _resampler(source, rate)(block, True)
        skip = first - begin * rate // source
        return out[skip : skip + last - first]

    def note_doubts(self) -> None:
        """Note doubts about the content of audio that was read from its beginning."""
        if not self._from_start:
            return
        if self._peak < _SILENCE:
            self._note("is silent")
        elif self._levels[0] < _CANCELLED * self._levels[1]:
            self._note("its channels cancel each other out: choose one, --channel 0")

    def _require_end(self, got: int, wanted: int) -> None:
        rate = self._file.samplerate
        if got < wanted - _TOLERANCE * rate:
            raise UserError(
                f"{self.name}: ends after {got / rate:.2f} s, but its header says "
                f"{self.duration:.2f} s: the file is incomplete, or was changed while "
                "it was read; copy it again"
            )

    def _seek(self, frame: int) -> None:
        self._from_start |= frame == 0
        with _naming(self.name):
            self._file.seek(frame)

    def _read(self, frames: int, at: float) -> Samples:
        """Read, check and mix; ``at`` is the place in seconds."""
        with _naming(self.name):
            block = self._file.read(frames, dtype="float32", always_2d=True)
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            at += float(bad.argmax()) / self._file.samplerate
            raise UserError(
                f"{self.name}: NaN or infinity at {at:.3f} s: write the file again"
            )
        peak = float(np.abs(block).max(initial=0.0))
        self._peak = max(self._peak, peak)
        if peak > 1:
            self._check_scale(block, peak)
        if self._channel is not None:
            return block[:, self._channel]
        mean = block.mean(axis=1)
        if block.shape[1] > 1:
            levels = float((mean**2).sum()), float((block**2).mean(axis=1).sum())
            self._levels = self._levels[0] + levels[0], self._levels[1] + levels[1]
        else:
            self._levels = 1.0, 1.0
        return np.asarray(mean, dtype=np.float32)

    def _check_scale(self, block: Samples, peak: float) -> None:
        from espnet_cif_hkd.io.audio import scale_of_integers

        scale = scale_of_integers(block)
        if scale is not None:
            raise UserError(
                f"{self.name}: its samples reach {peak:g}, but full scale is 1: it "
                f"seems to hold integers; divide its samples by {scale}"
            )
        self._note("some samples exceed full scale")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def open_audio(path: str | Path, rate: int, channel: str = "mean") -> Audio:
    """Open a file; see :class:`Audio`."""
    return Audio(path, rate, channel)


def read_audio(
    path: str | Path, rate: int, channel: str = "mean"
) -> tuple[Samples, list[str]]:
    """Read a complete file.

    Args:
        path: The file.
        rate: Sampling rate of the samples in Hz.
        channel: ``mean`` of all channels, or the number of one from 0.

    Returns:
        Samples ``(S,)`` in -1 to 1, and one line about each conversion or doubt.

    Raises:
        UserError: The file cannot be read, is empty, or a sample is NaN or infinite.
    """
    with open_audio(path, rate, channel) as audio:
        return audio.samples(), audio.notes


def _opened(path: Path) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise UserError(
            f"audio cannot be read, {error}: pip install soundfile"
        ) from error
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not an audio file")
    with _naming(str(path)):
        _refuse_cut_wav(path)
        return soundfile.SoundFile(path)


def _refuse_cut_wav(path: Path) -> None:
    """Compare the header with the size of the file; libsndfile reads what there is.

    Raises:
        UserError: There are fewer samples than the header says.
    """
    a_second = 0
    with path.open("rb") as stream:
        start = stream.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return
        while len(head := stream.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                break
            body = stream.read(min(size, 16))
            if name == b"fmt " and len(body) == 16:
                (a_second,) = struct.unpack_from("<I", body, 8)
            stream.seek(size + size % 2 - len(body), os.SEEK_CUR)
        else:
            return
        present = os.fstat(stream.fileno()).st_size - stream.tell()
    # Programs that write into a pipe do not know the size.
    if size < _UNKNOWN_SIZE and size - present > _TOLERANCE * a_second > 0:
        raise UserError(
            f"{path}: ends after {present / a_second:.2f} s, but its header says "
            f"{size / a_second:.2f} s: the file is incomplete; copy it again"
        )


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn an error of libsndfile or of the system into one line."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{name}: {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    path = Path(name)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    if not path.exists():
        return "the file has vanished"
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as problem:
        return f"cannot be read ({problem.strerror})"
    if not head:
        return "is an empty file: copy it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS: run git lfs pull"
    if path.suffix.lower() in _NEEDS_FFMPEG:
        return f"libsndfile does not read {path.suffix}: {_convert(path)}"
    detail = one_line(error).removeprefix(f"Error opening '{name}': ")
    return f"is no audio that libsndfile reads ({detail[:100]}): {_convert(path)}"


def _convert(path: Path) -> str:
    return f"convert it, ffmpeg -i {path.name} {path.stem or 'audio'}.wav"


def _check_soxr(name: str, source: int, rate: int) -> None:
    try:
        import soxr  # noqa: F401
    except ImportError:
        raise UserError(
            f"{name}: has {source} Hz, the model needs {rate} Hz: pip install soxr, or "
            "resample the file"
        ) from None


def _resampler(source: int, rate: int) -> Callable[[Samples, bool], Samples]:
    """Return a function of (block, is it the last one?)."""
    if source == rate:
        return lambda block, last: block
    import soxr

    stream = soxr.ResampleStream(source, rate, 1, dtype="float32", quality="HQ")
    return lambda block, last: np.asarray(stream.resample_chunk(block, last))
