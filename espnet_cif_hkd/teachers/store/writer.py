"""Fill a store of teacher vectors, a shard at a time.

Whatever happens between two shards, a kill, a full disk, the shards already named
are whole, and the next run computes only what is missing. Memory holds one shard, the
token ids of a bounded number of sentences, a bounded sample of hashes and the index of
the store, 12 bytes for each sentence.
"""

import errno
import functools
import hashlib
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
from espnet_cif_hkd.io.lock import locked
from espnet_cif_hkd.teachers.store.header import StoreHeader, check_header, header_for
from espnet_cif_hkd.teachers.store.reader import (
    Shard,
    StoreReader,
    sequence_key,
    shard_paths,
)
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import Teacher

SHARD_BYTES = 64 << 20
SPARE_BYTES = 64 << 20
_LOOKUP_CHUNK = 4096
_SAMPLE_LIMIT = 200_000
# Token ids that wait to be sorted by length. The characters of a shard are too few
# sentences: a quarter of what the PLM reads would be padding.
_WINDOW_ROWS = 1 << 21
_RUN_ROWS = 1 << 16  # vectors asked of the teacher at once, in float32
_REPORT_SECONDS = 10.0

Sequences = Callable[[], Iterable[Sequence[int]]]


@dataclass
class DumpReport:
    """What a dump has written."""

    n_sentences: int = 0
    n_tokens: int = 0


def dump_store(
    folder: Path,
    sequences: Sequences,
    teacher: OnlineTeacher,
    device: torch.device,
    shard_bytes: int = SHARD_BYTES,
) -> DumpReport:
    """Add the sentences that a store lacks; make the store if there is none.

    A store that lacks nothing is left alone, and the PLM is not opened. While another
    process writes into the store this one waits.

    Args:
        folder: the store.
        sequences: gives the token ids of all sentences, each time it is called.
        teacher: of the vectors; its token list is the store's.
        device: where the PLM runs.
        shard_bytes: about the size of one shard.

    Raises:
        UserError: the store is another teacher's or damaged, or the disk is too small
            or full.
    """
    config = teacher.config
    token_list, token_type = teacher.token_list, teacher.token_type
    with _locked(folder):
        header = None
        if (folder / "header.json").exists():
            header = StoreHeader.read(folder)
            check_header(folder, header, config, token_list, token_type)
        elif shard_paths(folder):
            raise UserError(
                f"teacher_store {folder}: has shards but no header.json; delete it"
            )
        missing = estimate_missing(sequences(), StoreReader(folder, config.dim))
        if header is not None and not missing.n_sentences:
            return DumpReport()
        check_disk(folder, missing.n_tokens * config.dim * 2)
        print_ = fingerprint(teacher)
        if header is not None:
            check_header(folder, header, config, token_list, token_type, print_)
        else:
            layers = teacher.open().model.config.num_hidden_layers
            with _told_disk_errors(folder):
                header_for(config, token_list, token_type, layers, print_).write(folder)
        return dump_features(
            folder,
            config.dim,
            sequences,
            teacher,
            device,
            shard_bytes=shard_bytes,
            expected=missing.n_sentences,
        )


def dump_features(
    folder: Path,
    dim: int,
    sequences: Sequences,
    teacher: Teacher,
    device: torch.device,
    *,
    shard_bytes: int = SHARD_BYTES,
    expected: int | None = None,
) -> DumpReport:
    """Write the missing sentences as shards; the store must be locked by the caller.

    Args:
        folder: the store.
        dim: C.
        sequences, teacher, device, shard_bytes: see :func:`dump_store`.
        expected: about how many sentences will be written, for the progress.
    """
    report = DumpReport()
    row_limit = max(1, shard_bytes // (2 * dim))
    reader = StoreReader(folder, dim)
    progress = _Progress(expected)
    pending: dict[bytes, tuple[int, ...]] = {}
    just_written: set[bytes] = set()  # which the look-up of the same chunk cannot know
    n_rows = 0

    def flush() -> None:
        # Sentences of like length together: less padding for the PLM to run through.
        keys = sorted(pending, key=lambda k: (len(pending[k]), k))
        for some in _cut(keys, [len(pending[k]) + 1 for k in keys], row_limit):
            rows = _compute({k: pending[k] for k in some}, teacher, device, progress)
            path = _next_shard(folder)
            with _told_disk_errors(folder):
                Shard.write(path, list(rows), list(rows.values()))
            reader.shards.append(Shard(path, dim))
            report.n_sentences += len(rows)
            report.n_tokens += sum(len(r) for r in rows.values())
            del rows  # two shards at once would be one too many
        just_written.update(pending)
        pending.clear()

    for keys, chunk in _chunks(sequences()):
        just_written.clear()
        for key, ids, place in zip(keys, chunk, reader.find(keys), strict=True):
            if place is not None or key in pending or key in just_written:
                continue
            pending[key] = ids
            n_rows += len(ids) + 1
            if n_rows >= max(row_limit, _WINDOW_ROWS):
                flush()
                n_rows = 0
    if pending:
        flush()
    progress.close()
    return report


def estimate_missing(
    sequences: Iterable[Sequence[int]], reader: StoreReader
) -> DumpReport:
    """How many distinct sentences and tokens a store lacks.

    Exact up to 200,000 sentences. Beyond that only the keys whose first bits are
    zero are kept, one bit more each time the sample is full, and counted as many
    times as there are such patterns: an estimate within about 1 %.
    """
    sample: dict[bytes, int] = {}
    bits = 0
    for keys, chunk in _chunks(sequences):
        for key, ids, place in zip(keys, chunk, reader.find(keys), strict=True):
            if place is None and _leading(key, bits) == 0:
                sample[key] = len(ids) + 1
        while len(sample) > _SAMPLE_LIMIT:
            bits += 1
            sample = {k: n for k, n in sample.items() if _leading(k, bits) == 0}
    return DumpReport(len(sample) << bits, sum(sample.values()) << bits)


def _leading(key: bytes, bits: int) -> int:
    return int.from_bytes(key[:8], "big") >> (64 - bits) if bits else 0


def check_disk(folder: Path, n_bytes: int) -> None:
    """Refuse to begin what will not fit.

    Raises:
        UserError: ``n_bytes`` and some spare space are more than is free.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes + SPARE_BYTES > free:
        raise UserError(
            f"teacher_store {folder}: {_mib(n_bytes)} MiB are to be written, but only "
            f"{_mib(free)} MiB are free; make room, or name a folder on another disk"
        )


def fingerprint(teacher: OnlineTeacher) -> str:
    """Hash of a teacher's weights and of how its tokenizer cuts the token list."""
    opened = teacher.open()
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(opened.model.state_dict().items()):
        # The pooler is not used, and is random where a checkpoint lacks it.
        if "pooler" not in name:
            digest.update(name.encode())
            digest.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            )
    text = " ".join(teacher.token_list)
    encoded = opened.tokenizer(text, return_offsets_mapping=True, verbose=False)
    digest.update(repr((encoded["input_ids"], encoded["offset_mapping"])).encode())
    return digest.hexdigest()


def _cut(keys: list[bytes], sizes: list[int], limit: int) -> list[list[bytes]]:
    """``keys`` in pieces whose sizes sum up to about ``limit``."""
    ends = np.cumsum(sizes)
    cuts = np.flatnonzero(np.diff(ends // limit)) + 1
    return [keys[i:j] for i, j in pairwise([0, *cuts.tolist(), len(keys)])]


def _compute(
    sentences: dict[bytes, tuple[int, ...]],
    teacher: Teacher,
    device: torch.device,
    progress: "_Progress",
) -> dict[bytes, np.ndarray]:
    """(U + 1, C) float16 vectors of each sentence."""
    sizes = {key: len(ids) + 1 for key, ids in sentences.items()}
    rows: dict[bytes, np.ndarray] = {}
    for some in _cut(list(sizes), list(sizes.values()), _RUN_ROWS):
        features = teacher.features([sentences[k] for k in some], device)
        halves = features.half()
        if not bool(halves.isfinite().all()):
            raise UserError(
                "the teacher's vectors do not fit float16 (the largest is "
                f"{float(features.abs().max()):.3g}); use the teacher without a store, "
                "or another layer"
            )
        parts = halves.cpu().split([sizes[k] for k in some])
        for key, part in zip(some, parts, strict=True):
            rows[key] = part.numpy()
        progress.add(len(some))
    return rows


def _chunks(
    sequences: Iterable[Sequence[int]],
) -> Iterator[tuple[list[bytes], list[tuple[int, ...]]]]:
    iterator = iter(sequences)
    while chunk := [tuple(ids) for ids in islice(iterator, _LOOKUP_CHUNK)]:
        yield [sequence_key(ids) for ids in chunk], chunk


def _next_shard(folder: Path) -> Path:
    numbers = [int(p.stem.partition("-")[2]) for p in shard_paths(folder)]
    return folder / f"shard-{max(numbers, default=-1) + 1:05d}.bin"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time; the system frees the lock of a killed one."""
    unwritable = functools.partial(_disk_error, folder)
    # Trainings that share a store begin together; to the second, which waits, there may
    # be nothing left to do.
    with locked(folder / ".lock", logging.warning, unwritable=unwritable):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        yield


@contextmanager
def _told_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _disk_error(folder, e) from e


def _disk_error(folder: Path, error: OSError) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"teacher_store {folder}: the disk is full; what is written is kept: "
            "make room and run the same command again"
        )
    return UserError(f"teacher_store {folder}: cannot write to it ({error})")


class _Progress:
    """A bar on a terminal, a dated line every ten seconds elsewhere."""

    def __init__(self, total: int | None):
        self._total = total
        self._done = 0
        self._told = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="sentence", desc="teacher vectors")

    def add(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._told > _REPORT_SECONDS:
            self._told = time.monotonic()
            of_all = f" of about {self._total}" if self._total is not None else ""
            logging.info("teacher vectors: %d%s sentences", self._done, of_all)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _mib(n_bytes: int) -> int:
    return -(-n_bytes >> 20)
