"""The results of single utterances: one compressed table for each corpus.

``utterances.csv.gz`` has one row for each utterance of each decoded set, for each
decoding and cell. Rows are sorted and the gzip header has no time stamp, so equal rows
give equal bytes. Columns after the key are counts:

- ``char_*``, ``word_*``: reference length, insertions, deletions, substitutions;
- ``*_tokens``: length of the reference and of the hypothesis in the model's tokens;
- ``seen_*``: reference tokens of a frequency class, and those that are wrong;
- ``sound_*``: wrong characters by sound; only where the readings are known.
"""

import csv
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablation.errors import FREQUENCIES, SOUNDS
from espnet_cif_hkd.errors import UserError

UNITS = ("char", "word")
KEY = ("set", "utterance", "decode", "cell")
COUNTED = (
    *(f"{unit}_{what}" for unit in UNITS for what in ("ref", "ins", "del", "sub")),
    *("ref_tokens", "hyp_tokens"),
    *(f"seen_{c}_{what}" for c in FREQUENCIES.values() for what in ("ref", "wrong")),
)
SOUNDED = tuple(f"sound_{name}" for name in SOUNDS)

Row = Mapping[str, str | int]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a corpus' results, so that no other process changes them."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def replace(path: Path, cell: str, rows: Sequence[Row]) -> None:
    """Write the rows of one cell into the table; the rows of all others stay.

    Hold :func:`locked`. The file is replaced at once, and only if a row changed.

    Args:
        path: the table; it need not exist.
        cell: name of the cell.
        rows: each has the columns of the module but ``cell``.

    Raises:
        UserError: the table cannot be read, or only a part of the cells has sounds.
    """
    sounded = any(SOUNDED[0] in row for row in rows)
    columns = (*KEY, *COUNTED, *(SOUNDED if sounded else ()))
    new = [[str({**row, "cell": cell}[name]) for name in columns] for row in rows]
    header, old = _load(path) if path.exists() else (list(columns), [])
    kept = [row for row in old if row[3] != cell]
    if kept and rows and header != list(columns):
        raise UserError(f"{path}: its cells and {cell} must all have readings, or none")
    lines = sorted(kept + new, key=lambda row: row[: len(KEY)])
    if lines == old:
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [columns if rows else header, *lines]
    )
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as stream:
        with gzip.GzipFile("", "wb", 9, stream, mtime=0) as packed:
            packed.write(text.getvalue().encode())
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


class Block:
    """The rows of one cell, decoding and set, by utterance.

    Attributes:
        utterances: U ids, ascending.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.utterances = tuple(row[1] for row in rows)
        self._columns = columns
        self._counts = np.array([row[len(KEY) :] for row in rows], dtype=np.int64)

    def counts(self, *names: str) -> NDArray[np.int64]:
        """Some columns, ``(U, len(names))``."""
        return self._counts[:, [self._columns.index(n) - len(KEY) for n in names]]

    @property
    def sounded(self) -> bool:
        """Whether it has the columns ``sound_*``."""
        return SOUNDED[0] in self._columns


Table = Mapping[tuple[str, str, str], Block]


def read(path: Path) -> Table:
    """The table by cell, decoding and set; empty if there is no file.

    Raises:
        UserError: naming the file, the line and what is wrong.
    """
    if not path.exists():
        return {}
    header, rows = _load(path)
    blocks: dict[tuple[str, str, str], list[list[str]]] = {}
    for row in rows:
        name, _, decode, cell = row[: len(KEY)]
        blocks.setdefault((cell, decode, name), []).append(row)
    return {key: Block(header, found) for key, found in blocks.items()}


def _load(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, checked."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise UserError(f"{path}: not a gzip table ({error})") from None
    if header not in ([*KEY, *COUNTED], [*KEY, *COUNTED, *SOUNDED]):
        raise UserError(f"{path}: line 1: other columns than those of this version")
    previous: list[str] = []
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UserError(f"{path}: line {number}: {len(row)} of {len(header)} cells")
        for name, value in zip(header[len(KEY) :], row[len(KEY) :]):
            if not (value.isascii() and value.isdecimal()):
                raise UserError(
                    f"{path}: line {number}: {name}: {value!r} is not a whole number"
                )
        if row[: len(KEY)] <= previous:
            raise UserError(
                f"{path}: line {number}: repeated, or not in the order of the keys"
            )
        previous = row[: len(KEY)]
    return header, rows
