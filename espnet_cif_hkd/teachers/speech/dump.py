"""Fill the store of a speech teacher from recordings, by one or several processes."""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.processes import die_with_parent
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher
from espnet_cif_hkd.teachers.store.writer import (
    SHARD_BYTES,
    Coded,
    DumpReport,
    coded,
    dump_store,
)

_SECONDS_A_WORKER = 300.0  # of speech; for less, a further process costs more


@dataclass(frozen=True)
class Recordings:
    """The recordings for the store of a speech teacher.

    Attributes:
        at: A function that returns the recordings with a sampling rate in Hz. They may
            repeat. It can be called several times.
        device: Device of the teacher.
        shard_bytes: Approximate size of one file of the store.
        num_workers: Number of processes that compute; 0 or 1: this one.
    """

    at: Callable[[int], Iterable[Recording]]
    device: torch.device
    shard_bytes: int = SHARD_BYTES
    num_workers: int = 1


def fill_speech_store(
    conf: Mapping[str, Any], folder: str, recordings: Recordings
) -> DumpReport:
    """Add the features of missing recordings to a store.

    The log has the size of an hour of speech and of all missing recordings before the
    first is computed.

    Args:
        conf: Options of the speech teacher, see ``build_speech_teacher``.
        folder: The store; overrides ``teacher_store``.
        recordings: The recordings.

    Returns:
        Numbers of new recordings and frames.

    Raises:
        UserError: The teacher, the store or a recording is wrong, or the disk is full.
    """
    teacher = build_speech_teacher(conf, stored=False)
    rate = int(conf.get("rate") or 16000)
    stride = teacher.times.stride

    def announce(missing: DumpReport) -> None:
        row_mb = teacher.payload.row_bytes / 1e6
        hours = missing.n_rows * stride / 3600
        # The start of a process takes some seconds.
        worth = 1 + int(hours * 3600 / _SECONDS_A_WORKER)
        workers.count = min(recordings.num_workers, worth)
        logging.info(
            "%s: %.0f MB per hour of speech (%s); about %d recordings, %.2f hours and "
            "%.1f MB are missing",
            *(folder, row_mb * 3600 / stride, teacher.payload.coding),
            *(missing.n_items, hours, missing.n_rows * row_mb),
        )

    begin = time.monotonic()
    workers = _Workers(conf, teacher, recordings.device)
    with contextlib.closing(workers):
        report = dump_store(
            Path(folder),
            lambda: recordings.at(rate),
            teacher,
            recordings.device,
            shard_bytes=recordings.shard_bytes,
            runner=workers.run,
            announce=announce,
        )
    seconds = time.monotonic() - begin
    logging.info(
        "%s: %d recordings (%.2f hours) added in %.0f s",
        *(folder, report.n_items, report.n_rows * stride / 3600, seconds),
    )
    return report


class _Workers:
    """Computes features in this process, or in others, which start when needed.

    Attributes:
        count: Number of processes; set before the first call of :meth:`run`.
    """

    def __init__(
        self, conf: Mapping[str, Any], teacher: SpeechTeacher, device: torch.device
    ) -> None:
        self.count = 1
        self._conf = dict(conf)
        self._here = functools.partial(coded, teacher, device)
        self._device = device
        self._pool: ProcessPoolExecutor | None = None

    def run(self, groups: Iterable[list[Any]]) -> Iterator[Coded]:
        """Compute the features of groups of recordings, in order."""
        if self.count < 2:
            yield from map(self._here, groups)
            return
        if self._pool is None:
            threads = max(1, len(os.sched_getaffinity(0)) // self.count)
            start = (self._conf, str(self._device), threads, os.getpid())
            context = get_context("spawn")  # a fork copies locks of threads and CUDA
            self._pool = ProcessPoolExecutor(
                self.count, context, initializer=_begin, initargs=start
            )
        try:
            yield from self._pool.map(_work, groups)
        except BrokenProcessPool as error:
            raise UserError(
                f"one of {self.count} processes of the speech teacher has ended, "
                "perhaps for lack of memory; what is written is kept: run the same "
                "command with a smaller --num_workers"
            ) from error

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


_teacher: SpeechTeacher | None = None
_device = torch.device("cpu")


def _begin(conf: dict[str, Any], device: str, threads: int, parent: int) -> None:
    global _teacher, _device
    die_with_parent(parent)
    torch.set_num_threads(threads)
    _teacher = build_speech_teacher(conf, stored=False)
    _device = torch.device(device)


def _work(items: list[Any]) -> Coded:
    assert _teacher is not None
    return coded(_teacher, _device, items)
