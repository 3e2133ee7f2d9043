"""One file of a store: items with their targets, a ``safetensors`` file.

Its tensors are ``keys`` (S, 16) uint8 in ascending order, ``starts`` (S + 1,) int64,
and the arrays of the payload, (R, width). Item s has the rows from ``starts[s]`` to
``starts[s + 1]``.
"""

import errno
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_bytes
from espnet_cif_hkd.teachers.base import KEY_BYTES
from espnet_cif_hkd.teachers.payload import Arrays, Payload
from espnet_cif_hkd.teachers.store.header import dump_hint

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
    errno.ENOMEM: "there is no memory left; close other programs",
}


@dataclass(frozen=True)
class Layout:
    """Positions of the arrays in the file of a shard.

    Attributes:
        n_items, n_rows: S and R.
        keys, starts: offsets of these arrays in bytes.
        arrays: offset of each array of the payload and size of its row, in bytes.
    """

    n_items: int
    n_rows: int
    keys: int
    starts: int
    arrays: dict[str, tuple[int, int]]


# Dtype, shape and first byte of each array of a file.
Found = dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]


class Shard:
    """An open shard: one file descriptor, no memory map, no content in memory.

    The file is closed by :meth:`close` or with the object.

    Args:
        path: path of the file.
        payload: kind and width of the store's targets.
        layout: layout of this file, if it was open before; None reads and checks it.

    Raises:
        UserError: the file is damaged or cannot be read.
    """

    def __init__(self, path: Path, payload: Payload, layout: Layout | None = None):
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY)
            if layout is None:
                with open(self._fd, "rb", buffering=0, closefd=False) as stream:
                    layout = self._checked(stream, payload)
        except UserError:
            raise
        except OSError as e:
            raise unreadable(path, e) from e
        except (ValueError, LookupError, TypeError, struct.error) as e:
            raise damaged(path, str(e)) from e
        self.layout = layout

    def __del__(self) -> None:
        self.close()

    def _find_arrays(self, stream: IO[bytes]) -> tuple[Found, int]:
        """Return all arrays, and the size that the file must have."""
        # A safetensors file has the length of a JSON header, the header and the data.
        # The slices of the library copy the data twice and are half as fast.
        (size,) = struct.unpack("<Q", stream.read(8))
        if size > os.fstat(self._fd).st_size:
            raise ValueError("its header is cut off")
        header: dict[str, Any] = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        first = 8 + size
        found = {
            name: (
                np.dtype(_NAMES[about["dtype"]]),
                tuple(about["shape"]),
                first + about["data_offsets"][0],
            )
            for name, about in header.items()
        }
        return found, first + max(a["data_offsets"][1] for a in header.values())

    def _checked(self, stream: IO[bytes], payload: Payload) -> Layout:
        found, wanted_size = self._find_arrays(stream)
        size = os.fstat(self._fd).st_size
        if size != wanted_size:
            raise ValueError(f"it has {size} bytes instead of {wanted_size}")
        _, (n_items, *_), keys = found["keys"]
        _, _, starts = found["starts"]
        first, *_ = payload.arrays
        n_rows = found[first][1][0]
        expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            name: (dtype, (n_rows, width))
            for name, (dtype, width) in payload.arrays.items()
        }
        expected["keys"] = (np.dtype("u1"), (n_items, KEY_BYTES))
        expected["starts"] = (_START, (n_items + 1,))
        shapes = {name: about[:2] for name, about in found.items()}
        if shapes != expected:
            raise ValueError(f"it holds {shapes} instead of {expected}")
        arrays = {
            name: (found[name][2], dtype.itemsize * width)
            for name, (dtype, width) in payload.arrays.items()
        }
        made = Layout(n_items, n_rows, keys, starts, arrays)
        rows = np.frombuffer(self._bytes(starts, 8 * (n_items + 1)), _START)
        if rows[0] or rows[-1] != n_rows or (np.diff(rows) < 0).any():
            raise ValueError("it does not say where its items begin")
        return made

    def __len__(self) -> int:
        return self.layout.n_items

    def keys(self) -> np.ndarray:
        """Return the keys, (S,), 16 bytes each."""
        return np.frombuffer(self._bytes(self.layout.keys, KEY_BYTES * len(self)), KEY)

    def find(self, place: int, key: bytes) -> tuple[int, int] | None:
        """Return the first row of the item at ``place`` and the row after its last.

        None if the key of this item is not ``key``.
        """
        if self._bytes(self.layout.keys + KEY_BYTES * place, KEY_BYTES) != key:
            return None
        begin, end = struct.unpack(
            "<qq", self._bytes(self.layout.starts + 8 * place, 16)
        )
        return begin, end

    def read(self, name: str, begin: int, out: np.ndarray) -> None:
        """Fill ``out``, contiguous, with rows of an array from ``begin`` on."""
        at, row_bytes = self.layout.arrays[name]
        at += begin * row_bytes
        left = out.reshape(-1).view(np.uint8).data
        while left:
            try:
                count = os.preadv(self._fd, [left], at)
            except OSError as e:
                raise unreadable(self.path, e) from e
            if not count:
                raise damaged(self.path, "its end is missing")
            left, at = left[count:], at + count

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _bytes(self, at: int, count: int) -> bytes:
        try:
            data = os.pread(self._fd, count, at)
        except OSError as e:
            raise unreadable(self.path, e) from e
        if len(data) != count:
            raise damaged(self.path, "its end is missing")
        return data

    @staticmethod
    def write(path: Path, items: Mapping[bytes, Arrays]) -> None:
        """Write a file with at least one item.

        Args:
            path: the file.
            items: arrays of each item by its key.

        Raises:
            OSError: the file cannot be written; nothing of it is left.
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
        write_bytes(path, data)


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error for a file that cannot be read but may be intact."""
    if isinstance(error, FileNotFoundError):
        return damaged(path, "it has gone")
    code = error.errno or 0
    cure = _SCARCE.get(
        code, "look for a fault of the disk or the network, and try again"
    )
    return UserError(f"{path}: cannot be read ({error.strerror or error}): {cure}")


def damaged(path: Path, reason: str) -> UserError:
    """Return the error for a file whose content is wrong."""
    return UserError(
        f"{path}: this shard is damaged ({reason[:200]}); delete it and {dump_hint()}"
    )
