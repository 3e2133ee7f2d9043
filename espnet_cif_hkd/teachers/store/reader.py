"""Targets on disk, found by the keys of their items.

A store is a folder: ``header.json`` says whose targets these are, and each
``shard-NNNNN.safetensors`` holds some items. A shard is complete as soon as it has its
name. Of each item 12 bytes of an index are in memory; shards are opened when they are
needed, and only a bounded number of them stays open.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import (
    AbsTeacher,
    Item,
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

Place = tuple[int, int, int]  # number of a shard, first row, row after the last


def shard_paths(folder: Path) -> list[Path]:
    """The complete shards of a store, in the order of their numbers."""
    return sorted(
        path for path in folder.glob("shard-*") if path.suffix in (SUFFIX, v1.SUFFIX)
    )


class StoreReader:
    """All shards of a store and one index over them.

    Args:
        folder: the store.
        payload: of its targets.

    Raises:
        UserError: a shard is damaged, or cannot be read now.
    """

    def __init__(self, folder: Path, payload: Payload):
        self.paths: list[Path] = []
        self._payload = payload
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._layouts: list[Layout] = []
        self._ends: list[int] = []
        # The first eight bytes of each key, and the number of its item.
        self._prefixes = np.zeros(0, dtype=np.uint64)
        self._numbers = np.zeros(0, dtype=np.uint32)
        self.add(shard_paths(folder))

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, paths: Sequence[Path]) -> None:
        """Read more shards; one of them is open at a time."""
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
        """For each key its shard and the rows there, or None."""
        wanted = _prefixes(np.array(keys, dtype=KEY))
        begins = np.searchsorted(self._prefixes, wanted)
        ends = np.searchsorted(self._prefixes, wanted, side="right")
        candidates: list[tuple[int, int, int]] = []
        for n in np.flatnonzero(begins < ends).tolist():
            # Different keys may begin alike, however rarely.
            for number in self._numbers[begins[n] : ends[n]].tolist():
                shard = bisect_right(self._ends, number)
                first = self._ends[shard - 1] if shard else 0
                candidates.append((shard, number - first, n))
        found: list[Place | None] = [None] * len(keys)
        # Shard by shard, so that each one is opened once.
        for number, item, n in sorted(candidates):
            rows = self._shard(number).find(item, keys[n])
            if rows is not None:
                found[n] = (number, *rows)
        return found

    def read(self, places: Sequence[Place]) -> tuple[list[int], Arrays]:
        """Rows of each item that was found, and the arrays of all, one after the other.

        Returns:
            Rows of each item, and (R, width) arrays by the names of the payload.
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


class StoredTeacher(TextTeacher):
    """A teacher whose targets are read from a store, of any kind of payload.

    Args:
        folder: the store.
        teacher: the teacher that it must have been made for; it is not opened.
    """

    def __init__(self, folder: str, teacher: AbsTeacher[Any]):
        self.folder = Path(folder)
        self.teacher = teacher
        self.payload = teacher.payload
        self._reader: StoreReader | None = None

    @classmethod
    def from_conf(cls, *args: Any, **kwargs: Any) -> "StoredTeacher":
        """Not used: ``build_text_teacher`` makes stored teachers of all classes."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        # Open files are not sent to other processes.
        return {**self.__dict__, "_reader": None}

    def open(self) -> StoreReader:
        """Open the store, unless it is open.

        Raises:
            UserError: it is missing, damaged or made for something else.
        """
        if self._reader is None:
            header = StoreHeader.read(self.folder)
            check_header(self.folder, header, self.teacher)
            self._reader = StoreReader(self.folder, header.payload)
        return self._reader

    def targets(self, items: Sequence[Item], device: torch.device) -> Targets:
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
                    f"{self.teacher.spell(item)}; {dump_hint()}"
                )
            places.append(place)
        sizes, arrays = reader.read(places)
        tensors = {name: on_device(array, device) for name, array in arrays.items()}
        return Targets(sizes, self.payload.decode(tensors))

    def features(self, sequences: Sequence[Tokens], device: torch.device) -> Tensor:
        """See :class:`TextTeacher`."""
        return self.targets(sequences, device).tensors["vectors"]

    def key(self, item: Any) -> bytes:
        """See :class:`AbsTeacher`."""
        return self.teacher.key(item)

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsTeacher`."""
        return self.teacher.describe()

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`AbsTeacher`."""
        return self.teacher.fingerprint(cache)
