"""Teacher vectors on disk, found by the token ids of a sentence.

A store is a folder: ``header.json`` says whose vectors these are, and each
``shard-NNNNN.bin`` holds some sentences: a magic line, then three arrays in NumPy's
own format: keys (S,) sorted 16-byte hashes, starts (S + 1,) int64 rows, features
(R, C) float16. A shard is complete from the moment when it has its name. Reading
maps the files into memory; of a sentence only 12 bytes of an index stay there.
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.store.header import (
    KEY_BYTES,
    StoreHeader,
    check_header,
    dump_hint,
    write_atomically,
)
from espnet_cif_hkd.teachers.text.plm import TeacherConfig
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller

_KEY = np.dtype(f"S{KEY_BYTES}")
_MAGIC = b"espnet_cif_hkd shard 1\n"


def sequence_key(ids: Sequence[int]) -> bytes:
    """16-byte BLAKE2b hash of a token id sequence (as little-endian int32)."""
    data = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


class Shard:
    """One file of a store, mapped into memory."""

    def __init__(self, path: Path, dim: int):
        self.path = path
        try:
            with open(path, "rb") as f:
                if f.read(len(_MAGIC)) != _MAGIC:
                    raise ValueError("it does not begin as a shard does")
                self._keys = _map_array(f, path, _KEY)
                self._starts = _map_array(f, path, np.dtype("<i8"))
                self._features = _map_array(f, path, np.dtype("<f2"))
                rest = f.read(1)
            rows = int(self._starts[-1])
            if rest or self._features.shape != (rows, dim):
                raise ValueError(f"it does not hold {rows} vectors of width {dim}")
        except (OSError, ValueError, EOFError, IndexError) as e:
            raise UserError(
                f"{path}: this shard is damaged ({e}); delete it and {dump_hint()}"
            ) from e

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def n_rows(self) -> int:
        """Vectors in the shard."""
        return len(self._features)

    def prefixes(self) -> np.ndarray:
        """(S,) uint64, the first eight bytes of each key."""
        return _prefixes(self._keys)

    def holds(self, place: int, key: bytes) -> bool:
        """Whether the sentence at ``place`` is that of ``key``."""
        return self._keys[place : place + 1].tobytes() == key

    def rows(self, place: int) -> np.ndarray:
        """(U + 1, C) float16 vectors of a sentence."""
        return self._features[self._starts[place] : self._starts[place + 1]]

    @staticmethod
    def write(
        path: Path, keys: Sequence[bytes], features: Sequence[np.ndarray]
    ) -> None:
        """Write sentences, each with its key and (U + 1, C) float16 vectors."""
        order = sorted(range(len(keys)), key=keys.__getitem__)
        starts = np.zeros(len(keys) + 1, dtype="<i8")
        np.cumsum([len(features[n]) for n in order], out=starts[1:])

        def write(f: BinaryIO) -> None:
            f.write(_MAGIC)
            _write_array(f, np.array([keys[n] for n in order], dtype=_KEY))
            _write_array(f, starts)
            rows = np.concatenate([features[n] for n in order])
            _write_array(f, rows.astype("<f2", copy=False))

        write_atomically(path, write)


def _write_array(f: BinaryIO, array: np.ndarray) -> None:
    """Like ``np.save``, whose error on a full disk carries no error number."""
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(
        f, np.lib.format.header_data_from_array_1_0(array)
    )
    f.write(array.view(np.uint8).data)


def _map_array(f: BinaryIO, path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """Map the array that begins at the file's position and step over it."""
    if np.lib.format.read_magic(f) != (1, 0):
        raise ValueError("an array of it has another format")
    shape, _, found = np.lib.format.read_array_header_1_0(f)
    if found != dtype:
        raise ValueError(f"an array of it is {found}, not {dtype}")
    start = f.tell()
    size = int(np.prod(shape)) * dtype.itemsize
    if os.path.getsize(path) < start + size:
        raise ValueError("its end is missing")
    f.seek(size, os.SEEK_CUR)
    # An empty array cannot be mapped.
    if not size:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape)


def _prefixes(keys: np.ndarray) -> np.ndarray:
    return keys.view(">u8")[::2].astype(np.uint64)


class StoreReader:
    """All shards of a store, behind one index.

    To ask shard after shard would cost a large store much more than the reading. The
    index is made at the first search after a change of ``shards`` and holds 12 bytes
    for each sentence.
    """

    def __init__(self, folder: Path, dim: int):
        self.shards = [Shard(path, dim) for path in shard_paths(folder)]
        self._ends: list[int] = []
        self._prefixes = np.zeros(0, dtype=np.uint64)
        self._numbers = np.zeros(0, dtype=np.uint32)

    def _index(self) -> None:
        self._ends = np.cumsum([len(shard) for shard in self.shards]).tolist()
        joined = np.concatenate([shard.prefixes() for shard in self.shards])
        order = np.argsort(joined, kind="stable")
        self._prefixes = joined[order]
        self._numbers = order.astype(np.uint32)

    def find(self, keys: Sequence[bytes]) -> list[tuple[int, int] | None]:
        """For each key its shard and its place there, or None."""
        if len(self._ends) != len(self.shards):
            self._index()
        found: list[tuple[int, int] | None] = [None] * len(keys)
        wanted = _prefixes(np.array(keys, dtype=_KEY))
        places = np.searchsorted(self._prefixes, wanted)
        ends = np.searchsorted(self._prefixes, wanted, side="right")
        for n in np.flatnonzero(places < ends).tolist():
            # Different keys may begin alike, however rarely.
            for number in self._numbers[places[n] : ends[n]].tolist():
                shard = bisect_right(self._ends, number)
                place = number - (self._ends[shard - 1] if shard else 0)
                if self.shards[shard].holds(place, keys[n]):
                    found[n] = (shard, place)
        return found

    def rows(self, place: tuple[int, int]) -> np.ndarray:
        """(U + 1, C) float16 vectors of a sentence that was found."""
        return self.shards[place[0]].rows(place[1])


def shard_paths(folder: Path) -> list[Path]:
    """The complete shards of a store, in the order of their numbers."""
    return sorted(folder.glob("shard-*.bin"))


class StoredTeacher:
    """A :class:`~espnet_cif_hkd.teachers.text.plm.Teacher` that reads a store.

    Args:
        folder: the store.
        config: the teacher that it must have been made for.
        token_list: of the ASR model.
        token_type: of the ASR model; None infers it.
    """

    def __init__(
        self,
        folder: str,
        config: TeacherConfig,
        token_list: Sequence[str],
        token_type: str | None = None,
    ):
        self.folder = Path(folder)
        self.config = config
        self.token_list = list(token_list)
        self.token_type = token_type
        self._reader: StoreReader | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Maps of files do not travel to other processes.
        return {**self.__dict__, "_reader": None}

    def open(self) -> StoreReader:
        """Open the store unless it is open.

        Raises:
            UserError: it is missing, damaged or made for something else.
        """
        if self._reader is None:
            header = StoreHeader.read(self.folder)
            check_header(
                self.folder, header, self.config, self.token_list, self.token_type
            )
            self._reader = StoreReader(self.folder, header.dim)
        return self._reader

    def features(
        self, sequences: Sequence[Sequence[int]], device: torch.device
    ) -> Tensor:
        """See :class:`~espnet_cif_hkd.teachers.text.plm.Teacher`.

        Raises:
            UserError: a sentence is not in the store.
        """
        reader = self.open()
        parts = [np.zeros((0, self.config.dim), dtype=np.float16)]
        places = reader.find([sequence_key(ids) for ids in sequences])
        for ids, place in zip(sequences, places, strict=True):
            if place is None:
                speller = TokenSpeller(self.token_list, self.token_type, "<unk>")
                raise UserError(
                    f"teacher_store {self.folder}: has no vectors for the sentence "
                    f"{speller(ids).text!r}; {dump_hint()}"
                )
            parts.append(reader.rows(place))
        return on_device(np.concatenate(parts), device).float()
