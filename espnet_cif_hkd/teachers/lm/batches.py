"""Padded batches of unit ids for language models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import Tokens
from espnet_cif_hkd.teachers.lm.labels import flat_ids

# Padded units in one run of the LM. On a CPU, few units fit into its caches and have
# less padding; other devices need more units to be busy.
_RUN_UNITS = {"cpu": 1024}
_RUN_UNITS_ELSEWHERE = 16384

# Units of a window, number of the first row, and the positions [begin, end) that give
# rows.
Piece = tuple[Tokens, int, int, int]


def run_units(device: torch.device) -> int:
    """Return the number of padded units in one run on a device."""
    return _RUN_UNITS.get(device.type, _RUN_UNITS_ELSEWHERE)


def windows(length: int, limit: int, lead: int) -> Iterator[tuple[int, int, int]]:
    """Split a sequence that is longer than ``limit`` into overlapping windows.

    Consecutive windows share at least half of their units. Each unit has its row from
    one window, in which at least ``lead`` units precede it unless it is in the first.

    Args:
        length: Number of units; 0 gives no window.
        limit: Largest number of units of a window.
        lead: From 0 to the half of ``limit``, rounded up.

    Yields:
        The first unit, and the positions [begin, end) in the window that give rows.
    """
    if length <= limit:
        if length:
            yield 0, 0, length
        return
    starts = [*range(0, length - limit, max(1, limit // 2)), length - limit]
    begins = [0, *(start + lead for start in starts[1:]), length]
    for start, begin, end in zip(starts, begins, begins[1:]):
        yield start, begin - start, end - start


def pieces(items: Sequence[Tokens], limit: int | None, lead: int) -> list[Piece]:
    """Split items into windows; see :func:`windows`. ``limit`` None: no limit."""
    found: list[Piece] = []
    row = 0
    for ids in items:
        if limit is None or len(ids) <= limit:
            if len(ids):
                found.append((ids, row, 0, len(ids)))
        else:
            for start, begin, end in windows(len(ids), limit, lead):
                window = ids[start : start + limit]
                found.append((window, row + start + begin, begin, end))
        row += len(ids)
    return found


def grouped(widths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield the indices of ``widths`` in groups of similar width.

    The padded size of a group, its number of rows times the largest width, is at most
    ``budget``, unless it has only one row.
    """
    group: list[int] = []
    for n in np.argsort(np.asarray(widths), kind="stable").tolist():
        if group and widths[n] * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(n)
    if group:
        yield group


@dataclass(frozen=True)
class Batch:
    """Some pieces, padded.

    Attributes:
        ids: (B, W) int64, unit ids; 0 in the padding.
        lengths: (B,) number of units of each piece.
        rows: (n,) int64, numbers of the rows of the batch.
        places: (n,) int64, place of each row in the flattened (B, W).
    """

    ids: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, some: Sequence[Piece]) -> "Batch":
        """Pad pieces, at least one."""
        lengths = np.array([len(ids) for ids, *_ in some])
        first, begin, end = np.array([piece[1:] for piece in some]).T[:, :, None]
        columns = np.arange(lengths.max())  # (W,)
        padded = np.zeros((len(some), len(columns)), np.int64)
        padded[columns < lengths[:, None]] = flat_ids([ids for ids, *_ in some])
        wanted = (begin <= columns) & (columns < end)  # (B, W)
        rows = (first - begin + columns)[wanted]
        return cls(padded, lengths, rows, np.flatnonzero(wanted))

    @property
    def valid(self) -> np.ndarray:
        """Return which places hold units: (B, W) bool."""
        return np.arange(self.ids.shape[1]) < self.lengths[:, None]

    @property
    def padded_rows(self) -> np.ndarray:
        """Return the row of each place of the flattened (B, W), or -1: (B * W,)."""
        rows = np.full(self.ids.size, -1)
        rows[self.places] = self.rows
        return rows

    def take(self, padded: Tensor) -> Tensor:
        """Return the rows of ``padded`` (B, W, V): (n, V)."""
        flat = padded.flatten(0, 1)
        if len(self.places) == len(flat):
            return flat
        return flat.index_select(0, on_device(self.places, padded.device))


def batches(
    items: Sequence[Tokens], budget: int, limit: int | None = None, lead: int = 0
) -> Iterator[Batch]:
    """Yield padded batches of items; see :func:`pieces` and :func:`grouped`."""
    found = pieces(items, limit, lead)
    for group in grouped([len(ids) for ids, *_ in found], budget):
        yield Batch.of([found[n] for n in group])
