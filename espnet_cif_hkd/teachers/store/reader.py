"""Reads targets from a store by the keys of their items.

A store is a folder with ``header.json``, which describes the targets, and files
``shard-NNNNN.safetensors`` with the items. A shard gets its name only when it is
complete. The index in memory has 12 bytes for each item. Shards are opened when they
are needed, and a bounded number of them stays open.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import (
    AbsTeacher,
    Targets,
    TextTeacher,
    Tokens,
)
from espnet_cif_hkd.teachers.payload import Arrays, Payload
from espnet_cif_hkd.teachers.store import v1
from espnet_cif_hkd.teachers.store.header import (
    StoreHeader,
    check_header,
    dump_hint,
)
from espnet_cif_hkd.teachers.store.shard import KEY, Layout, Shard

SUFFIX = ".safetensors"
OPEN_SHARDS = 64
SAMPLE = 20_000  # rows for statistics of each dimension
_RUN = 16  # neighbouring rows of a sample

Place = tuple[int, int, int]  # number of a shard, first row, row after the last


def shard_paths(folder: Path) -> list[Path]:
    """Return the complete shards of a store, sorted by number."""
    return sorted(
        path for path in folder.glob("shard-*") if path.suffix in (SUFFIX, v1.SUFFIX)
    )


class StoreReader:
    """All shards of a store and one index over them.

    Args:
        folder: the store.
        payload: kind and width of its targets.
        paths: the shards to read; None: all.

    Raises:
        UserError: a shard is damaged or cannot be read.
    """

    def __init__(
        self, folder: Path, payload: Payload, paths: Sequence[Path] | None = None
    ):
        self.paths: list[Path] = []
        self._payload = payload
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._layouts: list[Layout] = []
        self._ends: list[int] = []
        # The first eight bytes of each key, and the index of its item.
        self._prefixes = np.zeros(0, dtype=np.uint64)
        self._numbers = np.zeros(0, dtype=np.uint32)
        self.add(shard_paths(folder) if paths is None else paths)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, paths: Sequence[Path]) -> None:
        """Add shards to the index; only one of them is open at a time."""
        parts = [self._prefixes]
        for path in paths:
            shard = self._opened(path)
            parts.append(_prefixes(shard.keys()))
            shard.close()
            self._layouts.append(shard.layout)
            self._ends.append((self._ends[-1] if self._ends else 0) + len(shard))
            self.paths.append(path)
        joined = np.concatenate(parts)
        new = np.arange(len(self), len(joined), dtype=np.uint32)
        order = np.argsort(joined, kind="stable")
        self._prefixes = joined[order]
        self._numbers = np.concatenate([self._numbers, new])[order]

    def find(self, keys: Sequence[bytes]) -> list[Place | None]:
        """Return shard and rows of each key; None for a key that is not stored."""
        wanted = _prefixes(np.array(keys, dtype=KEY))
        begins = np.searchsorted(self._prefixes, wanted)
        ends = np.searchsorted(self._prefixes, wanted, side="right")
        candidates: list[tuple[int, int, int]] = []
        for n in np.flatnonzero(begins < ends).tolist():
            # Different keys may have the same first bytes, although rarely.
            for number in self._numbers[begins[n] : ends[n]].tolist():
                shard = bisect_right(self._ends, number)
                first = self._ends[shard - 1] if shard else 0
                candidates.append((shard, number - first, n))
        found: list[Place | None] = [None] * len(keys)
        # Shard by shard, so that each is opened only once.
        for number, item, n in sorted(candidates):
            rows = self._shard(number).find(item, keys[n])
            if rows is not None:
                found[n] = (number, *rows)
        return found

    def read(self, places: Sequence[Place]) -> tuple[list[int], Arrays]:
        """Read the rows of items.

        Returns:
            Number of rows of each item, and the concatenated arrays (R, width) by the
            names of the payload.
        """
        sizes = [end - begin for _, begin, end in places]
        ends = np.cumsum([0, *sizes]).tolist()
        arrays = {
            name: np.empty((ends[-1], width), dtype)
            for name, (dtype, width) in self._payload.arrays.items()
        }
        for n in sorted(range(len(places)), key=places.__getitem__):
            number, begin, _ = places[n]
            shard = self._shard(number)
            for name, array in arrays.items():
                shard.read(name, begin, array[ends[n] : ends[n + 1]])
        return sizes, arrays

    def sample(self, limit: int) -> Arrays:
        """Read about ``limit`` rows, spread evenly over the store; all if it has fewer.

        The choice depends on the content of the store only.
        """
        sizes = [layout.n_rows for layout in self._layouts]
        ends = np.cumsum([0, *sizes])
        if ends[-1] <= limit:
            return self.read([(n, 0, size) for n, size in enumerate(sizes)])[1]
        begins = np.linspace(0, ends[-1] - _RUN, -(-limit // _RUN)).astype(np.int64)
        shards = np.searchsorted(ends, begins, side="right") - 1
        return self.read(
            [
                (n, first, min(first + _RUN, sizes[n]))
                for n, first in zip(shards.tolist(), (begins - ends[shards]).tolist())
            ]
        )[1]

    def _shard(self, number: int) -> Shard:
        shard = self._open.get(number)
        if shard is None:
            while len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
            layout = self._layouts[number]
            shard = self._open[number] = self._opened(self.paths[number], layout)
        self._open.move_to_end(number)
        return shard

    def _opened(self, path: Path, layout: Layout | None = None) -> Shard:
        kind = v1.OldShard if path.suffix == v1.SUFFIX else Shard
        return kind(path, self._payload, layout)


def _prefixes(keys: np.ndarray) -> np.ndarray:
    """(S,) uint64, the first eight bytes of each key."""
    return keys.view(">u8")[::2].astype(np.uint64)


class StoreBacked(AbsTeacher[Any]):
    """What teachers have in common that read a store, for texts and for speech.

    Args:
        folder: the store.
        teacher: the teacher of the configuration, for comparison with the header; it is
            not opened.
    """

    def __init__(self, folder: str, teacher: AbsTeacher[Any]):
        self.folder = Path(folder)
        self.teacher = teacher
        self.payload = teacher.payload
        self._reader: StoreReader | None = None
        self._header: StoreHeader | None = None

    @classmethod
    def from_conf(cls, *args: Any, **kwargs: Any) -> Any:
        """Not used: the registries wrap the teacher of a configuration."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        # Open files cannot be sent to other processes.
        return {**self.__dict__, "_reader": None}

    def open(self) -> StoreReader:
        """Open the store, unless it is open.

        Raises:
            UserError: the store is missing, damaged or made for another configuration.
        """
        if self._reader is None:
            header = self.header()
            check_header(self.folder, header, self.teacher)
            self._reader = StoreReader(self.folder, header.payload)
        return self._reader

    def header(self) -> StoreHeader:
        """Return the header of the store, which is read once."""
        if self._header is None:
            self._header = StoreHeader.read(self.folder)
        return self._header

    def key(self, item: Any) -> bytes:
        """See :class:`AbsTeacher`."""
        return self.teacher.key(item)

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsTeacher`."""
        return self.teacher.describe()

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`AbsTeacher`."""
        return self.teacher.fingerprint(cache)

    def targets(self, items: Sequence[Any], device: torch.device) -> Targets:
        """See :class:`AbsTeacher`.

        Raises:
            UserError: an item is not in the store.
        """
        reader = self.open()
        places = []
        found = reader.find([self.teacher.key(item) for item in items])
        for item, place in zip(items, found, strict=True):
            if place is None:
                raise UserError(
                    f"teacher_store {self.folder}: has no targets for "
                    f"{self.teacher.spell(item)}; {dump_hint(self.payload.kind)}"
                )
            places.append(place)
        sizes, arrays = reader.read(places)
        tensors = {name: on_device(array, device) for name, array in arrays.items()}
        return Targets(sizes, self.payload.decode(tensors))


class StoredTeacher(StoreBacked, TextTeacher):
    """A teacher whose targets are read from a store, for any payload."""

    def features(self, sequences: Sequence[Tokens], device: torch.device) -> Tensor:
        """See :class:`TextTeacher`."""
        return self.targets(sequences, device).tensors["vectors"]

    def sample(self) -> Iterator[Tensor]:
        """Yield vectors that are spread evenly over the store; see the base class."""
        arrays = self.open().sample(SAMPLE)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        yield self.payload.decode(tensors)["vectors"]
