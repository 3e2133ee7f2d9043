"""Recordings of Kaldi data folders, read as ESPnet's training reads them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.segments import Segment, read_segments
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.teachers.speech.base import HIGHEST_PEAK, Recording, recording_key

_AHEAD = 64  # recordings that are read at the same time as others


class ListedRecording(Recording):
    """A recording in a table; its samples are read when they are used, and not kept.

    Its key and its duration are kept after the first reading. It can be sent to other
    processes.

    Args:
        name: Name of the utterance.
        rate: Expected sampling rate in Hz.
        read: Returns samples and their rate for a name.
    """

    def __init__(
        self, name: str, rate: int, read: Callable[[str], tuple[np.ndarray, int]]
    ) -> None:
        # The base class is frozen and has samples as an attribute.
        self.__dict__.update(name=name, rate=rate, _read=read)

    @property
    def samples(self) -> np.ndarray:  # type: ignore[override]
        """Read the samples, ``(S,)`` float32.

        Raises:
            UserError: The audio cannot be read or is wrong.
        """
        try:
            samples, rate = self.__dict__["_read"](self.name)
        except UserError:
            raise
        except (ValueError, RuntimeError, OSError, AssertionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise UserError(
                f"audio of {self.name} cannot be read ({reason[:200]}): correct it, or "
                "run stage 3 again"
            ) from error
        _check(self.name, samples, rate, self.rate)
        return np.asarray(samples, dtype=np.float32)

    @cached_property
    def _known(self) -> tuple[bytes, float]:
        samples = self.samples
        return recording_key(samples), len(samples) / self.rate

    @property
    def key(self) -> bytes:
        """Result of :func:`recording_key`; reads the samples once."""
        return self._known[0]

    @property
    def seconds(self) -> float:
        """Duration in seconds; reads the samples once."""
        return self._known[1]


def _check(name: str, samples: np.ndarray, rate: int, wanted: int) -> None:
    if rate != wanted:
        raise UserError(
            f"audio of {name} has {rate} Hz, but the configuration asks for {wanted} "
            "Hz (fs): convert the audio, or correct fs"
        )
    if samples.ndim != 1:
        raise UserError(
            f"audio of {name} has {samples.shape[1]} channels: run stage 3 with "
            "--channel 0 (or another number), or --channel mean"
        )
    if not len(samples):
        raise UserError(f"audio of {name} is empty: remove this utterance")
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise UserError(f"audio of {name} contains NaN or infinity: correct it")
    if peak > HIGHEST_PEAK:
        raise UserError(
            f"audio of {name} has samples up to {peak:g}, but full scale is 1: run "
            "stage 3 with --audio_format flac or wav"
        )


class _Table:
    """Reads the audio of a ``wav.scp`` by ESPnet's own reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_reader": None}

    def __call__(self, name: str) -> tuple[np.ndarray, int]:
        if self._reader is None:
            self._reader = _espnet_reader(self.folder)
        return self._reader(name)


class _Segments:
    """Cuts the segments of recordings; keeps the last recording."""

    def __init__(self, table: _Table, segments: dict[str, Segment]) -> None:
        self._table = table
        self._segments = segments
        self._last: tuple[str, np.ndarray, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def __call__(self, name: str) -> tuple[np.ndarray, int]:
        segment, last = self._segments[name], self._last
        if last is None or last[0] != segment.recording:
            last = self._last = (segment.recording, *self._table(segment.recording))
        _, samples, rate = last
        segment.check_duration(len(samples) / rate)
        last_sample = None if segment.end == -1 else int(segment.end * rate)
        part = samples[int(segment.begin * rate) : last_sample]
        if segment.channel is not None and part.ndim == 2:
            part = part[:, segment.channel]
        return part, rate


def _espnet_reader(folder: Path) -> Callable[[str], tuple[np.ndarray, int]]:
    """Return a function that reads an entry of ``wav.scp`` as ESPnet does."""
    from espnet2.train.dataset import DATA_TYPES

    note = folder / "audio_format"
    kind = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    # The same choice as in ESPnet's asr.sh.
    name = "sound"
    if "ark" in kind:
        name = "kaldi_ark"
    elif "multi" in kind:
        name = "multi_columns_sound"
    load = DATA_TYPES[name]["func"]
    path = str(folder / "wav.scp")
    loader = load(path, float_dtype="float32", allow_multi_rates=True).loader

    def read(utterance: str) -> tuple[np.ndarray, int]:
        first, second = loader[utterance]
        # Readers of sound files give the rate first, those of archives may not.
        return (second, first) if isinstance(first, int) else (first, int(second))

    return read


def data_folder(folder: Path, rate: int) -> list[ListedRecording]:
    """Return the utterances of a Kaldi data folder, such as ``dump/raw/train``.

    Args:
        folder: Has ``wav.scp``, and ``segments`` if utterances are parts of recordings.
        rate: Expected sampling rate in Hz.

    Raises:
        UserError: A table is missing or malformed.
    """
    table = folder / "wav.scp"
    if not table.is_file():
        raise UserError(
            f"{folder}: has no wav.scp; name a Kaldi data folder, such as "
            "dump/raw/train_nodev"
        )
    entries = read_table(table)
    table_reader = _Table(folder)
    read: Callable[[str], tuple[np.ndarray, int]] = table_reader
    names = list(entries)
    if (folder / "segments").is_file():
        segments = read_segments(folder / "segments", entries)
        read = _Segments(table_reader, {one.utterance: one for one in segments})
        names = [one.utterance for one in segments]
    else:
        pipe = next((name for name, value in entries.items() if value[-1:] == "|"), "")
        if pipe:
            raise UserError(
                f"{table}: {pipe} is a command, which ESPnet's training cannot read: "
                "name the folder that stage 3 makes, under dump/raw"
            )
    return [ListedRecording(name, rate, read) for name in names]


def read_ahead(
    recordings: Sequence[ListedRecording], threads: int | None = None
) -> Iterator[ListedRecording]:
    """Yield recordings in order; their keys are computed by several threads."""
    listed = iter(recordings)
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        while some := list(islice(listed, _AHEAD)):
            list(pool.map(lambda one: one.key, some))
            yield from some
