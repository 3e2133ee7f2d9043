"""Lists of the best hypotheses, and the choice among them with another score."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_lines

# Files that asr_inference writes for each rank.
FILES = ("text", "token", "token_int", "score")
# What a fit tries: weights of the other score, and what a token adds.
WEIGHTS = tuple(round(0.05 * n, 2) for n in range(31))
BONUSES = tuple(round(0.25 * n, 2) for n in range(-4, 13))
_RANK = re.compile(r"(\d+)best_recog")
_NUMBER = re.compile(r"[-+]?(?:inf|nan|\d+\.?\d*(?:[eE][-+]?\d+)?)")


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
        folder: Has ``logdir/output.J/Nbest_recog``, of each job J and rank N.

    Returns:
        The hypotheses of each utterance, the best first. Ranks that an utterance lacks,
        because the search found less, are left out.

    Raises:
        UserError: There are no such lists, or a file of one is damaged.
    """
    ranks = sorted(
        (int(match[1]), path)
        for path in folder.glob("logdir/output.*/*best_recog")
        if (match := _RANK.fullmatch(path.name))
    )
    if not ranks:
        raise UserError(
            f"{folder}: has no logdir/output.*/1best_recog; give the folder of a set "
            "that stage 12 has decoded, such as exp/asr_…/decode_…/test"
        )
    found: dict[str, list[Hypothesis]] = {}
    for _, path in ranks:
        for key, one in _read_rank(path).items():
            found.setdefault(key, []).append(one)
    if max(map(len, found.values()), default=0) < 2:
        raise UserError(
            f"{folder}: each utterance has one hypothesis, so there is no choice; "
            'decode again with --inference_args "--beam_size 10 --nbest 10"'
        )
    return found


def _read_rank(folder: Path) -> dict[str, Hypothesis]:
    columns: dict[str, dict[str, str]] = {}
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: run stage 12 again")
        lines = (line.partition(" ") for line in read_lines(folder / name))
        columns[name] = {key: value for key, _, value in lines}
    found = {}
    for key, score in columns["score"].items():
        number = _NUMBER.search(score)
        texts = [columns[name].get(key) for name in FILES[:3]]
        if number is None or None in texts:
            raise UserError(f"{folder}: {key} is incomplete: run stage 12 again")
        text, token, token_int = map(str, texts)
        found[key] = Hypothesis(text, token, token_int, float(number[0]))
    return found


def totals(
    hypotheses: Sequence[Hypothesis],
    others: Mapping[str, float],
    weight: float,
    bonus: float,
) -> np.ndarray:
    """Return the total score of each hypothesis: (N,) float64.

    Args:
        hypotheses: Of one utterance.
        others: The other score of each text.
        weight: Of the other score.
        bonus: What each token adds.
    """
    return np.array(
        [one.score + weight * others[one.text] + bonus * len(one) for one in hypotheses]
    )


def choose(
    nbest: NBest, others: Mapping[str, float], weight: float, bonus: float
) -> dict[str, tuple[Hypothesis, float]]:
    """Return the hypothesis with the best total score, and this score.

    Of equal totals the one that the search preferred; see :func:`totals`.

    Example:
        >>> so = Hypothesis("so", "s o", "1 2", -1.0)
        >>> to = Hypothesis("to", "t o", "3 2", -2.0)
        >>> choose({"u": [so, to]}, {"so": -9.0, "to": -4.0}, 0.5, 0.0)["u"][0].text
        'to'
    """
    found = {}
    for key, hypotheses in nbest.items():
        scores = totals(hypotheses, others, weight, bonus)
        best = int(scores.argmax())
        found[key] = hypotheses[best], float(scores[best])
    return found


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
    """Find the weight and the bonus that choose the fewest errors.

    Of equal pairs, the one with the smallest weight and then the bonus nearest to 0.

    Args:
        nbest: Hypotheses of each utterance.
        others: The other score of each text.
        count_errors: Of an utterance's name and a text.
        weights: To try.
        bonuses: To try.
    """
    scores, errors = [], []
    for key, hypotheses in nbest.items():
        rows = [(one.score, others[one.text], len(one)) for one in hypotheses]
        scores.append(np.array(rows, np.float64))
        errors.append(np.array([count_errors(key, one.text) for one in hypotheses]))
    pairs = sorted(
        ((weight, bonus) for weight in weights for bonus in bonuses),
        key=lambda pair: (pair[0], abs(pair[1])),
    )
    best: tuple[int, float, float] | None = None
    for weight, bonus in pairs:
        factors = np.array([1.0, weight, bonus])
        total = sum(
            int(wrong[(rows @ factors).argmax()]) for rows, wrong in zip(scores, errors)
        )
        if best is None or total < best[0]:
            best = total, weight, bonus
    assert best is not None
    first, least = (sum(int(pick(e)) for e in errors) for pick in (_first, np.min))
    return Fitted(best[1], best[2], best[0], first, least)


def _first(errors: np.ndarray) -> int:
    return int(errors[0])
