"""Alignment of a hypothesis with its reference, equal to that of NIST's sclite.

sclite uses the alignment with the lowest cost; a substitution costs 4, an insertion or
deletion 3. Often several alignments have the lowest cost but different numbers of
errors: three substitutions cost as much as two insertions and two deletions. Libraries
resolve such ties differently (kaldialign 0.12 with ``sclite_mode``) or have equal costs
(jiwer, rapidfuzz), so their totals differ from those of sclite. The order of preference
below gave the result of sclite 2.10 for every tested pair (see the tests).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SUBSTITUTION = 4
INDEL = 3
# sclite's symbol for "no word": such a token is neither counted nor aligned.
NULL_WORD = "@"


@dataclass(frozen=True)
class Alignment:
    """Pairs of (reference, hypothesis) tokens; ``None`` for a missing token.

    ``marks`` has a letter for each pair: C (correct), S, D or I.
    """

    pairs: tuple[tuple[str | None, str | None], ...]
    marks: str

    @property
    def correct(self) -> int:
        return self.marks.count("C")

    @property
    def substituted(self) -> int:
        return self.marks.count("S")

    @property
    def deleted(self) -> int:
        return self.marks.count("D")

    @property
    def inserted(self) -> int:
        return self.marks.count("I")

    @property
    def errors(self) -> int:
        return len(self.marks) - self.correct

    @property
    def n_ref(self) -> int:
        """Number of tokens of the reference."""
        return len(self.marks) - self.inserted


def fold_case(token: str) -> str:
    """Change A to Z to lower case, and no other letters, as sclite does."""
    return "".join(c.lower() if c.isascii() else c for c in token)


def align(
    reference: Sequence[str], hypothesis: Sequence[str], fold: bool = True
) -> Alignment:
    """Align two token sequences.

    Args:
        reference: tokens of the reference.
        hypothesis: tokens of the hypothesis.
        fold: ignore case, as sclite does by default.
    """
    reference = [token for token in reference if token != NULL_WORD]
    hypothesis = [token for token in hypothesis if token != NULL_WORD]
    ref = [fold_case(token) for token in reference] if fold else reference
    hyp = [fold_case(token) for token in hypothesis] if fold else hypothesis
    costs = _costs(ref, hyp)
    row, column = len(ref), len(hyp)
    pairs: list[tuple[str | None, str | None]] = []
    marks: list[str] = []
    while row or column:
        here = costs[row, column]
        # Among last steps of equal cost, a pair is preferred, then an insertion.
        differs = row and column and ref[row - 1] != hyp[column - 1]
        pair = SUBSTITUTION if differs else 0
        if row and column and costs[row - 1, column - 1] + pair == here:
            row, column = row - 1, column - 1
            marks.append("S" if differs else "C")
            pairs.append((reference[row], hypothesis[column]))
        elif column and costs[row, column - 1] + INDEL == here:
            column -= 1
            marks.append("I")
            pairs.append((None, hypothesis[column]))
        else:
            row -= 1
            marks.append("D")
            pairs.append((reference[row], None))
    return Alignment(tuple(reversed(pairs)), "".join(reversed(marks)))


def _costs(ref: Sequence[str], hyp: Sequence[str]) -> "np.ndarray":
    """Return the lowest cost for every pair of prefixes, ``(R + 1, H + 1)``."""
    numbers: dict[str, int] = {}
    coded_ref = [numbers.setdefault(token, len(numbers)) for token in ref]
    coded_hyp = np.array(
        [numbers.setdefault(token, len(numbers)) for token in hyp], dtype=np.int64
    )
    inserted = INDEL * np.arange(len(hyp) + 1)
    costs = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int64)
    costs[0] = inserted
    for row, token in enumerate(coded_ref, 1):
        above = costs[row - 1]
        current = above + INDEL
        paired = above[:-1] + SUBSTITUTION * (coded_hyp != token)
        current[1:] = np.minimum(current[1:], paired)
        # An insertion costs INDEL more than the cell to the left.
        costs[row] = np.minimum.accumulate(current - inserted) + inserted
    return costs
