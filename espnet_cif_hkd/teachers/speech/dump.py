"""Fill the store of a speech teacher from recordings, by one or several processes."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
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
    Runner,
    coded,
    dump_store,
)


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
    seconds_of = teacher.times.stride

    def announce(missing: DumpReport) -> None:
        row_mb = teacher.payload.row_bytes / 1e6
        hours = missing.n_rows * seconds_of / 3600
        logging.info(
            "%s: %.0f MB per hour of speech (%s); about %d recordings, %.2f hours and "
            "%.1f MB are missing",
            *(folder, row_mb * 3600 / seconds_of, teacher.payload.coding),
            *(missing.n_items, hours, missing.n_rows * row_mb),
        )

    begin = time.monotonic()
    with _workers(conf, recordings) as runner:
        report = dump_store(
            Path(folder),
            lambda: recordings.at(rate),
            teacher,
            recordings.device,
            shard_bytes=recordings.shard_bytes,
            runner=runner,
            announce=announce,
        )
    seconds = time.monotonic() - begin
    logging.info(
        "%s: %d recordings (%.2f hours) added in %.0f s",
        *(folder, report.n_items, report.n_rows * seconds_of / 3600, seconds),
    )
    return report


@contextmanager
def _workers(
    conf: Mapping[str, Any], recordings: Recordings
) -> Iterator[Runner | None]:
    """Yield a runner of several processes; None for one process."""
    count = recordings.num_workers
    if count < 2:
        yield None
        return
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    start = (dict(conf), str(recordings.device), threads, os.getpid())
    context = get_context("spawn")  # a fork would copy the state of threads and CUDA
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=start)
    try:

        def run(groups: Iterable[list[Any]]) -> Iterator[Coded]:
            try:
                yield from pool.map(_work, groups)
            except BrokenProcessPool as error:
                raise UserError(
                    f"one of {count} processes of the speech teacher has ended, "
                    "perhaps for lack of memory; what is written is kept: run the same "
                    "command with a smaller --num_workers"
                ) from error

        yield run
    finally:
        pool.shutdown(cancel_futures=True)


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
