"""Reads models in the format of CTranslate2: a ``model.bin`` with named variables.

A file holds, in little-endian order: the version of the format, the name and revision
of the model's specification, and for each variable its name, shape, type and values;
then pairs of names for variables with the same values. CTranslate2 is not needed.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError

# Version of the format, which is not the version of CTranslate2.
VERSION = 6
_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}


@dataclass(frozen=True)
class CT2Model:
    """Content of a ``model.bin``.

    Attributes:
        specification: Name of the model's specification, such as ``WhisperSpec``.
        variables: Arrays by name.
    """

    specification: str
    variables: dict[str, np.ndarray]


def read_model(parts: Sequence[Path]) -> CT2Model:
    """Read a ``model.bin``, which may be cut into several files.

    Args:
        parts: The files in their order.

    Raises:
        UserError: A file is missing, or the content is not a complete model of a known
            version of the format.
    """
    names = " + ".join(str(part) for part in parts)
    try:
        data = b"".join(part.read_bytes() for part in parts)
    except OSError as e:
        raise UserError(f"{names}: cannot be read ({e})") from e
    cursor = _Cursor(data)
    try:
        (version,) = cursor.numbers("I")
        if version != VERSION:
            raise UserError(
                f"{names}: is no CTranslate2 model in version {VERSION} of its format "
                f"(it begins with {version}); name model.bin or all its parts in order"
            )
        specification = cursor.text()
        _revision, count = cursor.numbers("II")
        variables = dict(cursor.variable() for _ in range(count))
        (count,) = cursor.numbers("I")
        for _ in range(count):
            alias, name = cursor.text(), cursor.text()
            variables[alias] = variables[name]
    except (struct.error, ValueError, LookupError) as e:
        raise UserError(
            f"{names}: is damaged or not complete ({len(data):,} bytes; "
            f"{type(e).__name__}: {e}); name all its parts in order, or get a new copy"
        ) from e
    if cursor.place != len(data):
        raise UserError(
            f"{names}: {len(data) - cursor.place:,} bytes follow the last variable; "
            "name the parts of one model only"
        )
    return CT2Model(specification, variables)


class _Cursor:
    """A position in the content of a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Read unsigned numbers with the codes of ``struct``."""
        values = struct.unpack_from("<" + layout, self._data, self.place)
        self.place += struct.calcsize("<" + layout)
        return values

    def take(self, size: int) -> bytes:
        found = self._data[self.place : self.place + size]
        if len(found) < size:
            raise ValueError(f"{size - len(found):,} bytes are missing")
        self.place += size
        return found

    def text(self) -> str:
        (size,) = self.numbers("H")
        return self.take(size).rstrip(b"\0").decode("utf-8")

    def variable(self) -> tuple[str, np.ndarray]:
        name = self.text()
        (rank,) = self.numbers("B")
        shape = self.numbers(f"{rank}I")
        code, size = self.numbers("BI")
        if code not in _TYPES:
            raise ValueError(f"{name} has the unknown type {code}")
        return name, np.frombuffer(self.take(size), _TYPES[code]).reshape(shape)
