"""Fill a store with a teacher's targets, a shard at a time.

After a kill or with a full disk, the shards that have their names are complete, and the
next run computes only what is missing. The memory holds one shard, a bounded number of
items, a bounded sample of hashes, and the index of the store with 12 bytes for each
item. Items of speech are names of recordings, whose samples are read when needed.
"""

import errno
import functools
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.lock import alone
from espnet_cif_hkd.teachers.base import AbsTeacher
from espnet_cif_hkd.teachers.payload import Arrays
from espnet_cif_hkd.teachers.store import v1
from espnet_cif_hkd.teachers.store.header import (
    CACHE,
    HEADER,
    OtherTeacherError,
    StoreHeader,
    check_header,
)
from espnet_cif_hkd.teachers.store.reader import SUFFIX, StoreReader, shard_paths
from espnet_cif_hkd.teachers.store.shard import Shard

SHARD_BYTES = 64 << 20
SPARE_BYTES = 64 << 20
_LOOKUP_CHUNK = 4096
_SAMPLE_LIMIT = 200_000
# Number of token ids that are sorted by length together. One shard of characters has
# too few sentences: a quarter of the PLM's input would be padding.
_WINDOW_ROWS = 1 << 21
# Targets of one call of the teacher, in float32; of frames fewer, because each worker
# process computes some calls of a shard.
_RUN_ROWS = {"tokens": 1 << 16, "labels": 1 << 16, "frames": 1 << 12}
_REPORT_SECONDS = 10.0
# After this time a slow teacher's rows are written, although the shard is small.
_SAVE_SECONDS = 300.0
_UNITS = {"frames": "recording"}  # of the progress

Items = Callable[[], Iterable[Any]]
# Number of rows of each item, and the stored arrays of the items, concatenated.
Coded = tuple[list[int], Arrays]
# Computes the targets of groups of items, in order.
Runner = Callable[[Iterable[list[Any]]], Iterator[Coded]]


@dataclass
class DumpReport:
    """Numbers of items (sentences or recordings) and of their rows."""

    n_items: int = 0
    n_rows: int = 0


def dump_store(
    folder: Path,
    items: Items,
    teacher: AbsTeacher[Any],
    device: torch.device,
    shard_bytes: int = SHARD_BYTES,
    runner: Runner | None = None,
    announce: Callable[[DumpReport], None] | None = None,
    replace: Callable[[str], None] | None = None,
) -> DumpReport:
    """Add missing items to a store; make the store if it does not exist.

    A complete store is only compared with the teacher's files; the teacher is not
    opened. If another process writes into the store, this one waits.

    Args:
        folder: the store.
        items: a function that returns all items, such as the token ids of all
            sentences; called several times.
        teacher: teacher of the targets.
        device: device of the teacher.
        shard_bytes: approximate size of one shard.
        runner: computes the targets, such as several processes; by default the teacher
            is opened and used in this process.
        announce: called with the numbers of missing items before the first is computed.
        replace: called with the reason before the content of a store of another
            teacher, or of other options, is deleted and computed again; None: such a
            store is refused.

    Raises:
        UserError: the store belongs to another teacher or is damaged, the disk is too
            small or full, or targets are not finite.
    """
    with _locked(folder):
        header, stale = None, ""
        if (folder / HEADER).exists():
            header = StoreHeader.read(folder)
            try:
                check_header(folder, header, teacher)
            except OtherTeacherError as error:
                if replace is None:
                    raise
                header, stale = None, error.reason
        if header is not None:
            if header.old_fingerprint and teacher.fingerprint(folder / CACHE):
                with _disk_errors_reported(folder):
                    header = v1.renew(folder, header, teacher)
        elif shard_paths(folder) and not stale:
            raise UserError(
                f"teacher_store {folder}: has shards but no {HEADER}, so their teacher "
                "is unknown; restore it from a copy, or delete the folder"
            )
        found = [] if stale else shard_paths(folder)
        reader = StoreReader(folder, teacher.payload, found)
        missing = estimate_missing(items(), reader, teacher)
        if announce is not None:
            announce(missing)
        if header is not None and not missing.n_items:
            return DumpReport()
        check_disk(folder, missing.n_rows * teacher.payload.row_bytes)
        teacher.open()
        if stale and replace is not None:
            replace(stale)
            with _disk_errors_reported(folder):
                _clear(folder)
        if header is None:
            with _disk_errors_reported(folder):
                print_ = teacher.fingerprint(folder / CACHE)
                StoreHeader(teacher.payload, teacher.describe(), print_).write(folder)
        return dump_targets(
            reader,
            folder,
            items,
            teacher,
            device,
            shard_bytes=shard_bytes,
            expected=missing.n_items,
            runner=runner,
        )


def _clear(folder: Path) -> None:
    """Delete the content of a store; its header last, so that a kill loses nothing."""
    for path in (*shard_paths(folder), *folder.glob("*.json")):
        if path.name != HEADER:
            path.unlink()
    (folder / HEADER).unlink()


def dump_targets(
    reader: StoreReader,
    folder: Path,
    items: Items,
    teacher: AbsTeacher[Any],
    device: torch.device,
    *,
    shard_bytes: int = SHARD_BYTES,
    expected: int | None = None,
    runner: Runner | None = None,
) -> DumpReport:
    """Write the missing items as shards; the caller has locked the store.

    Args:
        reader: reader of the store.
        folder, items, teacher, device, shard_bytes, runner: see :func:`dump_store`.
        expected: approximate number of items to write, for the progress.
    """
    report = DumpReport()
    row_limit = max(1, shard_bytes // teacher.payload.row_bytes)
    progress = _Progress(expected, _UNITS.get(teacher.payload.kind, "sentence"))
    if runner is None:
        runner = functools.partial(map, functools.partial(coded, teacher, device))
    pending: dict[bytes, Any] = {}
    just_written: set[bytes] = set()  # not yet in the index
    n_rows = 0

    def flush() -> None:
        # Items of similar length together: the teacher computes less padding.
        keys = sorted(pending, key=lambda k: (teacher.n_rows(pending[k]), k))
        for some in _cut(keys, [teacher.n_rows(pending[k]) for k in keys], row_limit):
            chosen = {k: pending[k] for k in some}
            for rows in _computed(chosen, teacher, runner, progress):
                path = _next_shard(reader, folder)
                with _disk_errors_reported(folder):
                    Shard.write(path, rows)
                reader.add([path])
                report.n_items += len(rows)
                report.n_rows += sum(len(next(iter(r.values()))) for r in rows.values())
                rows.clear()  # only one shard is in memory
        just_written.update(pending)
        pending.clear()

    for keys, chunk in _chunks(items(), teacher):
        just_written.clear()
        for key, item, place in zip(keys, chunk, reader.find(keys), strict=True):
            if place is not None or key in pending or key in just_written:
                continue
            pending[key] = item
            n_rows += teacher.n_rows(item)
            if n_rows >= max(row_limit, _WINDOW_ROWS):
                flush()
                n_rows = 0
    if pending:
        flush()
    progress.close()
    return report


def estimate_missing(
    items: Iterable[Any], reader: StoreReader, teacher: AbsTeacher[Any]
) -> DumpReport:
    """Return the number of missing distinct items, and about how many rows they have.

    Exact up to 200,000 items. Above that, only keys whose first bits are zero are
    sampled, with one bit more each time the sample is full; the result is within about
    1 %.
    """
    sample: dict[bytes, int] = {}
    bits = 0
    for keys, chunk in _chunks(items, teacher):
        for key, item, place in zip(keys, chunk, reader.find(keys), strict=True):
            if place is None and _leading(key, bits) == 0:
                sample[key] = teacher.n_rows(item)
        while len(sample) > _SAMPLE_LIMIT:
            bits += 1
            sample = {k: n for k, n in sample.items() if _leading(k, bits) == 0}
    return DumpReport(len(sample) << bits, sum(sample.values()) << bits)


def _leading(key: bytes, bits: int) -> int:
    return int.from_bytes(key[:8], "big") >> (64 - bits) if bits else 0


def check_disk(folder: Path, n_bytes: int) -> None:
    """Check that the disk has room for a dump.

    Raises:
        UserError: less than ``n_bytes`` plus some reserve is free.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes + SPARE_BYTES > free:
        raise UserError(
            f"teacher_store {folder}: {_mib(n_bytes)} MiB are to be written, but only "
            f"{_mib(free)} MiB are free; make room, or name a folder on another disk"
        )


def _cut(keys: list[bytes], sizes: list[int], limit: int) -> list[list[bytes]]:
    """Split ``keys`` into lists whose sizes add up to about ``limit``."""
    ends = np.cumsum(sizes)
    cuts = np.flatnonzero(np.diff(ends // limit)) + 1
    return [keys[i:j] for i, j in pairwise([0, *cuts.tolist(), len(keys)])]


def _computed(
    items: dict[bytes, Any],
    teacher: AbsTeacher[Any],
    runner: Runner,
    progress: "_Progress",
) -> Iterator[dict[bytes, Arrays]]:
    """Yield the stored arrays of items: all, or what a slow teacher has so far."""
    sizes = {key: teacher.n_rows(item) for key, item in items.items()}
    rows: dict[bytes, Arrays] = {}
    limit = teacher.run_rows or _RUN_ROWS[teacher.payload.kind]
    groups = _cut(list(sizes), list(sizes.values()), limit)
    begun = time.monotonic()
    found = runner([[items[key] for key in some] for some in groups])
    for some, (counts, arrays) in zip(groups, found, strict=True):
        ends = np.cumsum(counts)
        for key, begin, end in zip(some, ends - counts, ends, strict=True):
            rows[key] = {name: array[begin:end] for name, array in arrays.items()}
        progress.add(len(some))
        if time.monotonic() - begun > _SAVE_SECONDS:
            yield rows
            rows, begun = {}, time.monotonic()
    if rows:
        yield rows


def coded(
    teacher: AbsTeacher[Any], device: torch.device, items: Sequence[Any]
) -> Coded:
    """Compute the targets of items in the format of a store.

    Raises:
        UserError: a target is not finite, or does not fit the format.
    """
    targets = teacher.targets(items, device)
    for name, tensor in targets.tensors.items():
        bad = tensor.isfinite().logical_not().flatten(1).any(1).nonzero()
        if len(bad):
            number = int(
                np.searchsorted(np.cumsum(targets.sizes), int(bad[0]), "right")
            )
            raise UserError(
                f"teacher {teacher.describe().get('name')}: its {name} of "
                f"{teacher.spell(items[number])} contain NaN or infinity: correct or "
                "remove this item, or use teacher_dtype: float32; what is written is "
                "kept"
            )
    return targets.sizes, teacher.payload.encode(targets.tensors)


def _chunks(
    items: Iterable[Any], teacher: AbsTeacher[Any]
) -> Iterator[tuple[list[bytes], list[Any]]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _LOOKUP_CHUNK)):
        yield [teacher.key(item) for item in chunk], chunk


def _next_shard(reader: StoreReader, folder: Path) -> Path:
    last = reader.paths[-1].stem.partition("-")[2] if reader.paths else "-1"
    return folder / f"shard-{int(last) + 1:05d}{SUFFIX}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Allow one writer at a time; the system frees the lock of a killed process."""
    unwritable = functools.partial(_disk_error, folder)
    # If trainings that share a store begin together, the second one waits; then the
    # store may be complete.
    with alone(folder / ".lock", logging.warning, unwritable=unwritable):
        for leftover in (*folder.glob(".*.part"), *folder.glob(".*.tmp")):
            leftover.unlink()
        yield


@contextmanager
def _disk_errors_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _disk_error(folder, e) from e


def _disk_error(folder: Path, error: OSError) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"teacher_store {folder}: the disk is full; the written part is kept: "
            "make room and run the same command again"
        )
    return UserError(f"teacher_store {folder}: cannot write to it ({error})")


class _Progress:
    """A bar on a terminal; otherwise a log line every ten seconds."""

    def __init__(self, total: int | None, unit: str):
        self._total = total
        self._unit = unit
        self._done = 0
        self._reported = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, desc="targets")

    def add(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._reported > _REPORT_SECONDS:
            self._reported = time.monotonic()
            of_all = f" of about {self._total}" if self._total is not None else ""
            logging.info("targets: %d%s %ss", self._done, of_all, self._unit)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _mib(n_bytes: int) -> int:
    return -(-n_bytes >> 20)
