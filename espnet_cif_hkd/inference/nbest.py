"""Lists of the best hypotheses, and the choice among them with another score."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import byte_order, first_few, read_lines, read_table

# Files that asr_inference writes for each rank.
FILES = ("text", "token", "token_int", "score")
# What a fit tries: weights of the other score, and what a token adds.
WEIGHTS = tuple(round(0.05 * n, 2) for n in range(31))
BONUSES = tuple(round(0.25 * n, 2) for n in range(-4, 13))
# What the fit found for Gemma 3 270M on FOTAQ, with a bonus of 0.
WEIGHT = 0.5
_RANK = re.compile(r"(\d+)best_recog")
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Hypothesis:
    """One hypothesis of an utterance.

    Attributes:
        text: Its text.
        token: Its tokens, with spaces between them.
        token_int: Their indices, with spaces between them.
        score: Log-probability in the search.
    """

    text: str
    token: str
    token_int: str
    score: float

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.token_int.split())


NBest = Mapping[str, Sequence[Hypothesis]]


def read_nbest(folder: Path) -> dict[str, list[Hypothesis]]:
    """Read what ``asr_inference --nbest N`` left in the folder of a decoded set.

    Args:
        folder: Has ``text``, and ``logdir/output.J/Nbest_recog`` of each job J and
            rank N.

    Returns:
        The hypotheses of each utterance, the best first. An utterance has fewer if the
        search found fewer.

    Raises:
        UserError: There are no such lists, they are incomplete, or they are of two
            decodings.
    """
    keys = read_table(folder / "text", "decode the set with stage 12")
    ranks: dict[int, dict[str, Hypothesis]] = {}
    for path in sorted(folder.glob("logdir/output.*/*best_recog")):
        if match := _RANK.fullmatch(path.name):
            known, new = ranks.setdefault(int(match[1]), {}), _read_rank(path)
            if twice := known.keys() & new.keys():
                raise _stale(path, twice)
            known.update(new)
    found: dict[str, list[Hypothesis]] = {key: [] for key in keys}
    for rank, hypotheses in sorted(ranks.items()):
        for key, one in hypotheses.items():
            if key not in found:
                raise _stale(folder / "logdir", [key])
            if len(found[key]) != rank - 1:
                raise _incomplete(folder / "logdir", [key])
            found[key].append(one)
    if missing := [key for key, some in found.items() if not some]:
        raise _incomplete(folder / "logdir", missing)
    if max(map(len, found.values()), default=0) < 2:
        raise UserError(
            f"{folder}: each utterance has one hypothesis, so there is no choice; "
            'decode again with --inference_args "--beam_size 10 --nbest 10"'
        )
    for key, some in found.items():
        scores = [one.score for one in some]
        if any(after > before for before, after in itertools.pairwise(scores)):
            raise _stale(folder / "logdir", [key])
    return found


def _incomplete(path: Path, keys: Iterable[str]) -> UserError:
    some = first_few(sorted(keys, key=byte_order))
    return UserError(f"{path}: hypotheses are missing ({some}): run stage 12 again")


def _stale(path: Path, keys: Iterable[str]) -> UserError:
    some = first_few(sorted(keys, key=byte_order))
    return UserError(
        f"{path}: has hypotheses of an earlier decoding ({some}): remove logdir, and "
        "run stage 12 again"
    )


def _read_rank(folder: Path) -> dict[str, Hypothesis]:
    columns: dict[str, dict[str, str]] = {}
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: run stage 12 again")
        lines = (line.partition(" ") for line in read_lines(folder / name))
        columns[name] = {key: value for key, _, value in lines}
    keys = set().union(*columns.values())
    if missing := [
        k for k in keys if not all(k in table for table in columns.values())
    ]:
        raise _incomplete(folder, missing)
    found = {}
    for key, score in columns["score"].items():
        number = _NUMBER.search(score)
        if number is None:
            raise UserError(
                f"{folder / 'score'}: the score of {key}, {score!r}, is no finite "
                "number: run stage 12 again"
            )
        text, token, token_int = (columns[name][key] for name in FILES[:3])
        found[key] = Hypothesis(text, token, token_int, float(number[0]))
    return found


def totals(
    scores: Sequence[float],
    others: Sequence[float],
    lengths: Sequence[int],
    weight: float,
    bonus: float,
) -> np.ndarray:
    """Return the total score of each hypothesis of an utterance: (N,) float64.

    Args:
        scores: Of the search, (N,).
        others: The other scores, (N,).
        lengths: Numbers of tokens, (N,).
        weight: Of the other scores.
        bonus: What each token adds.

    Example:
        >>> totals([-1.0, -2.0], [-9.0, -4.0], [2, 3], 0.5, 1.0).tolist()
        [-3.5, -1.0]
    """
    columns = (np.asarray(column, np.float64) for column in (scores, others, lengths))
    score, other, length = columns
    return np.asarray(score + weight * other + bonus * length)


def require_finite(**numbers: float) -> None:
    """Check options.

    Raises:
        UserError: A number is not finite.
    """
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise UserError(f"{name} is {number}; it must be a finite number")


def choose(
    nbest: NBest, others: Mapping[str, float], weight: float, bonus: float
) -> dict[str, tuple[Hypothesis, float]]:
    """Return the hypothesis with the best total score of each utterance, and its total.

    Of equal totals, the one that the search preferred.

    Args:
        nbest: Hypotheses of each utterance.
        others: The other score of each text.
        weight: Of the other scores.
        bonus: What each token adds.
    """
    found = {}
    for key, some in nbest.items():
        scores = totals(*_columns(some, others), weight, bonus)
        best = int(scores.argmax())
        found[key] = some[best], float(scores[best])
    return found


def _columns(
    some: Sequence[Hypothesis], others: Mapping[str, float]
) -> tuple[list[float], list[float], list[int]]:
    return [h.score for h in some], [others[h.text] for h in some], [*map(len, some)]


@dataclass(frozen=True)
class Fitted:
    """Result of :func:`fit`.

    Attributes:
        weight: Of the other score.
        bonus: What each token adds.
        errors: Errors with them.
        first: Errors of the search's own best hypotheses.
        least: Errors of the best hypothesis of each list.
    """

    weight: float
    bonus: float
    errors: int
    first: int
    least: int


def fit(
    nbest: NBest,
    others: Mapping[str, float],
    count_errors: Callable[[str, str], int],
    weights: Iterable[float] = WEIGHTS,
    bonuses: Iterable[float] = BONUSES,
) -> Fitted:
    """Find the weight and the bonus whose choice has the fewest errors.

    Of equal pairs, the one with the smallest weight, then with the bonus nearest to 0.

    Args:
        nbest: Hypotheses of each utterance.
        others: The other score of each text.
        count_errors: Of an utterance's name and a text.
        weights: To try.
        bonuses: To try.

    Returns:
        The best pair, and numbers of errors.
    """
    columns = [_columns(some, others) for some in nbest.values()]
    errors = [[count_errors(k, h.text) for h in some] for k, some in nbest.items()]

    def total(weight: float, bonus: float) -> int:
        best = (int(totals(*column, weight, bonus).argmax()) for column in columns)
        return sum(wrong[n] for wrong, n in zip(errors, best, strict=True))

    pairs = sorted(
        itertools.product(weights, bonuses), key=lambda pair: (pair[0], abs(pair[1]))
    )
    weight, bonus = min(pairs, key=lambda pair: total(*pair))
    return Fitted(
        weight,
        bonus,
        total(weight, bonus),
        sum(wrong[0] for wrong in errors),
        sum(min(wrong) for wrong in errors),
    )
