"""Aligning a hypothesis with its reference exactly as NIST's sclite does.

sclite charges 4 for a substitution and 3 for an insertion or a deletion, and takes
the cheapest alignment. Often several are cheapest, and they can differ in the number
of errors: three substitutions cost as much as two insertions and two deletions.
Libraries break such ties otherwise (kaldialign 0.12's ``sclite_mode``) or weigh all
errors alike (jiwer, rapidfuzz), so their totals differ from sclite's; the order of
preference below reproduces sclite 2.10 on every pair tried (see the tests).
"""

from collections.abc import Sequence
from dataclasses import dataclass

SUBSTITUTION = 4
INDEL = 3
# sclite's name for "no word": it neither counts nor aligns such a token.
NULL_WORD = "@"


@dataclass(frozen=True)
class Alignment:
    """Pairs of (reference, hypothesis) tokens; ``None`` where one has no partner."""

    pairs: tuple[tuple[str | None, str | None], ...]
    correct: int
    substituted: int
    deleted: int
    inserted: int

    @property
    def errors(self) -> int:
        return self.substituted + self.deleted + self.inserted


def fold_case(token: str) -> str:
    """Letters A to Z in lower case: sclite compares bytes, so only those."""
    return "".join(c.lower() if c.isascii() else c for c in token)


def align(
    reference: Sequence[str], hypothesis: Sequence[str], fold: bool = True
) -> Alignment:
    """Align two token sequences.

    Args:
        reference: tokens of the reference.
        hypothesis: tokens of the hypothesis.
        fold: compare without regard to case, as sclite does by default.
    """
    reference = [token for token in reference if token != NULL_WORD]
    hypothesis = [token for token in hypothesis if token != NULL_WORD]
    ref = [fold_case(token) for token in reference] if fold else reference
    hyp = [fold_case(token) for token in hypothesis] if fold else hypothesis
    moves = _moves(ref, hyp)
    row, column = len(ref), len(hyp)
    pairs: list[tuple[str | None, str | None]] = []
    counts = [0, 0, 0, 0]
    while row or column:
        move = moves[row][column]
        if move == 0:
            row, column = row - 1, column - 1
            counts[0 if ref[row] == hyp[column] else 1] += 1
            pairs.append((reference[row], hypothesis[column]))
        elif move == 1:
            column -= 1
            counts[3] += 1
            pairs.append((None, hypothesis[column]))
        else:
            row -= 1
            counts[2] += 1
            pairs.append((reference[row], None))
    return Alignment(tuple(reversed(pairs)), *counts)


def _moves(ref: Sequence[str], hyp: Sequence[str]) -> list[bytearray]:
    """The last step of a cheapest path to each cell: 0 pair, 1 insert, 2 delete."""
    moves = [bytearray([1]) * (len(hyp) + 1)]
    above = [INDEL * column for column in range(len(hyp) + 1)]
    for row, token in enumerate(ref, 1):
        current = [INDEL * row]
        move = bytearray([2])
        for column, other in enumerate(hyp, 1):
            best = above[column - 1] + (0 if token == other else SUBSTITUTION)
            step = 0
            if current[column - 1] + INDEL < best:
                best, step = current[column - 1] + INDEL, 1
            if above[column] + INDEL < best:
                best, step = above[column] + INDEL, 2
            current.append(best)
            move.append(step)
        moves.append(move)
        above = current
    return moves
