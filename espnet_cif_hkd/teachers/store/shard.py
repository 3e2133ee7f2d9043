"""One file of a store: some items with their targets, a ``safetensors`` file.

Its tensors are ``keys`` (S, 16) uint8 in ascending order, ``starts`` (S + 1,) int64
rows, and those of the payload, (R, width) each: item s has the rows from ``starts[s]``
to ``starts[s + 1]``.
"""

import errno
import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import KEY_BYTES
from espnet_cif_hkd.teachers.payload import Arrays, Payload
from espnet_cif_hkd.teachers.store.header import dump_hint, write_atomically

KEY = np.dtype(f"S{KEY_BYTES}")
_START = np.dtype("<i8")
_NAMES = {
    "I8": "i1",
    "U8": "u1",
    "F16": "<f2",
    "F32": "<f4",
    "I32": "<i4",
    "I64": "<i8",
}
_SCARCE = {
    errno.EMFILE: "this process has too many open files; raise ulimit -n",
    errno.ENFILE: "this machine has too many open files; close other programs",
    errno.EACCES: "you may not read it; correct its permissions",
    errno.EPERM: "you may not read it; correct its permissions",
    errno.ENOMEM: "there is no memory for its map; raise vm.max_map_count or memory",
}


class Shard:
    """A shard, mapped into memory; one descriptor is open while it or a view exists.

    Args:
        path: of the file.
        payload: of the store.

    Attributes:
        keys: (S,) of 16 bytes.
        arrays: (R, width) views by the names of the payload.

    Raises:
        UserError: the file is damaged, or cannot be read now.
    """

    def __init__(self, path: Path, payload: Payload):
        self.path = path
        try:
            with open(path, "rb") as f:
                self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            self.arrays = self._read()
            self._check(payload)
        except OSError as e:
            raise unreadable(path, e) from e
        except (ValueError, LookupError, TypeError, struct.error) as e:
            raise damaged(path, str(e)) from e

    def _read(self) -> Arrays:
        """Views of the arrays by name, without a copy."""
        # The layout of a safetensors file: the length of a JSON header, the header,
        # the data. The library's own slices copy twice, and are half as fast.
        (size,) = struct.unpack("<Q", self._map[:8])
        header: dict[str, Any] = json.loads(self._map[8 : 8 + size])
        header.pop("__metadata__", None)
        arrays, end = {}, 8 + size
        for name, about in header.items():
            shape, dtype = about["shape"], np.dtype(_NAMES[about["dtype"]])
            begin = 8 + size + about["data_offsets"][0]
            end = max(end, 8 + size + about["data_offsets"][1])
            count = int(np.prod(shape))
            # An empty array has no place in the map.
            flat = (
                np.frombuffer(self._map, dtype, count, begin)
                if count
                else np.zeros(0, dtype)
            )
            arrays[name] = flat.reshape(shape)
        if end != len(self._map):
            raise ValueError(f"it has {len(self._map)} bytes instead of {end}")
        return arrays

    def _check(self, payload: Payload) -> None:
        keys, self._starts = self.arrays.pop("keys"), self.arrays.pop("starts")
        if keys.dtype != np.uint8 or keys.shape[1:] != (KEY_BYTES,):
            raise ValueError("its keys are no 16-byte hashes")
        self.keys = keys.reshape(-1).view(KEY)
        rows = int(self._starts[-1])
        if self._starts.shape != (len(self.keys) + 1,) or self._starts.dtype != _START:
            raise ValueError(f"it does not say where its {len(self.keys)} items begin")
        found = {name: (a.dtype, a.shape) for name, a in self.arrays.items()}
        wanted = {
            name: (dtype, (rows, width))
            for name, (dtype, width) in payload.arrays.items()
        }
        if found != wanted:
            raise ValueError(f"it does not hold {rows} rows of {wanted}, but {found}")

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, place: int, key: bytes) -> tuple[int, int] | None:
        """First row, and row after the last, of the item at ``place``, if it is that.

        None if its key is not ``key``.
        """
        if self.keys[place : place + 1].tobytes() != key:
            return None
        begin, end = self._starts[place : place + 2].tolist()
        return begin, end

    @staticmethod
    def write(path: Path, items: Mapping[bytes, Arrays]) -> None:
        """Write items, at least one: the arrays of each by its key.

        Raises:
            OSError: as the system's; nothing of the file is left.
        """
        from safetensors.numpy import save

        keys = sorted(items)
        arrays: Sequence[Arrays] = [items[key] for key in keys]
        tensors = {
            name: np.concatenate([item[name] for item in arrays]) for name in arrays[0]
        }
        sizes = [len(next(iter(item.values()))) for item in arrays]
        tensors["keys"] = np.array(keys, KEY).view(np.uint8).reshape(-1, KEY_BYTES)
        tensors["starts"] = np.cumsum([0, *sizes], dtype=_START)
        data = save(tensors)
        del tensors
        write_atomically(path, lambda f: f.write(data))


def unreadable(path: Path, error: OSError) -> UserError:
    """The refusal of a file that may well be healthy."""
    if isinstance(error, FileNotFoundError):
        return damaged(path, "it has gone")
    code = error.errno or 0
    cure = _SCARCE.get(
        code, "look for a fault of the disk or the network, and try again"
    )
    return UserError(f"{path}: cannot be read ({error.strerror or error}): {cure}")


def damaged(path: Path, reason: str) -> UserError:
    """The refusal of a file whose content is wrong."""
    return UserError(
        f"{path}: this shard is damaged ({reason[:200]}); delete it and {dump_hint()}"
    )
