"""Errors of starts and ends against known ones, in the definitions of the field."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

Span = tuple[float, float]

HEAD = [
    *("units", "mean boundary error, ms", "bias of starts, ends"),
    *("≤ 25, %", "≤ 50, %", "≤ 100, %", "≤ 200, %", "AAS of FunASR", "starts only"),
]


def matched(found: Sequence[str], known: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the units that two sequences have in common, in order."""
    blocks = SequenceMatcher(None, found, known, autojunk=False).get_matching_blocks()
    return [(one.a + n, one.b + n) for one in blocks for n in range(one.size)]


def given(recognizer: Any, frames: Any, text: str) -> Any:
    """The :class:`Recognition` of a known text for frames that are encoded already.

    Unlike ``Recognizer.align``, it takes unknown symbols as ``<unk>``.
    """
    from espnet_cif_hkd.inference.results import Found

    symbols = recognizer.speech2text.tokenizer.text2tokens(text)
    ids = recognizer.speech2text.converter.tokens2ids(symbols)
    return recognizer.results.aligned(frames, Found(ids, symbols, text))


class Boundaries:
    """Differences of starts and ends so far."""

    def __init__(self) -> None:
        self._errors: list[tuple[float, float]] = []

    def add(self, found: Span, known: Span) -> None:
        """Add a unit: start and end in seconds."""
        self._errors.append((found[0] - known[0], found[1] - known[1]))

    def __len__(self) -> int:
        return len(self._errors)

    def figures(self) -> dict[str, float]:
        """Milliseconds, and shares in percent.

        ``mean``: mean of the absolute errors of starts and ends. ``aas_funasr``: sum of
        both, twice as much (its ``AverageShiftCalculator``). ``starts``: of starts.
        """
        errors = 1e3 * np.array(self._errors).reshape(-1, 2)
        size = np.abs(errors)
        found = {f"within_{ms}": 100 * float((size <= ms).mean()) for ms in _LIMITS}
        return {
            "mean": float(size.mean()),
            "bias": float(errors.mean()),
            "bias_starts": float(errors[:, 0].mean()),
            "bias_ends": float(errors[:, 1].mean()),
            **found,
            "aas_funasr": float(size.sum(axis=1).mean()),
            "starts": float(size[:, 0].mean()),
        }

    def row(self) -> list[object]:
        """Cells below :data:`HEAD`."""
        if not self._errors:
            return [0, *["–"] * (len(HEAD) - 1)]
        found = self.figures()
        return [
            len(self),
            f"{found['mean']:.1f}",
            f"{found['bias_starts']:+.0f}, {found['bias_ends']:+.0f}",
            *(f"{found[f'within_{ms}']:.1f}" for ms in _LIMITS),
            f"{found['aas_funasr']:.1f}",
            f"{found['starts']:.1f}",
        ]


_LIMITS = (25, 50, 100, 200)
