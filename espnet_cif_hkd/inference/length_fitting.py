"""Fit how the decoder chooses the number of tokens."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.speech import Samples
from espnet_cif_hkd.search.greedy import GreedyHypothesis
from espnet_cif_hkd.search.length_score import length_score
from espnet_cif_hkd.search.lengths import (
    LengthSearch,
    choosing,
    length_of,
)

# What a fit tries; None: the mean of the log-probabilities decides.
BONUSES = (None, *(round(0.1 * n, 1) for n in range(-10, 31)))
FOLDS = 5

CountErrors = Callable[[str, str], int]


@dataclass(frozen=True)
class Sentence:
    """The best sentence for one number of tokens.

    Attributes:
        text: The text of its tokens.
        score: Sum of the log-probabilities of its tokens and of ``<eos>``.
        n_tokens: Without ``<eos>``.
    """

    text: str
    score: float
    n_tokens: int


Sentences = Mapping[str, Sequence[Sentence]]


@dataclass(frozen=True)
class FittedLength:
    """Result of :func:`fit_bonus`.

    Attributes:
        bonus: With the fewest errors; None: the mean.
        before: Errors of the numbers of tokens that fire by themselves.
        errors: Errors with ``bonus``.
        held_out: Errors of utterances that were left out of a fit, five times a fifth.
        least: Errors of the best candidates.
    """

    bonus: float | None
    before: int
    errors: int
    held_out: int
    least: int


@dataclass(frozen=True)
class _Recorder(LengthSearch):
    """Keeps the candidates of each search; what fires by itself stays the result."""

    seen: list[Sequence[GreedyHypothesis]] = dataclasses.field(default_factory=list)

    def choose(self, candidates: Sequence[GreedyHypothesis]) -> GreedyHypothesis:
        self.seen.append(candidates)
        return candidates[0]


class CandidateLists:
    """Lists the candidates of utterances.

    Args:
        recognizer: Of a CIF model; its search is greedy.
        slack: As of :class:`LengthSearch`.
    """

    def __init__(self, recognizer: Recognizer, slack: int) -> None:
        self._recognizer, self._slack = recognizer, slack
        self._decoder = recognizer.speech2text.asr_model.decoder

    def __call__(self, samples: Samples) -> list[Sentence]:
        """Return the sentence of each number of tokens; the first fires by itself."""
        frames = self._recognizer.frames(samples)
        if frames is None:
            return [Sentence("", 0.0, 0)]
        recorder = _Recorder(self._slack)
        with choosing(self._decoder, recorder):
            self._recognizer.speech2text.search([frames.hidden])
        return [self._sentence(one) for one in recorder.seen[0]]

    def _sentence(self, one: GreedyHypothesis) -> Sentence:
        ids = one.yseq[1:-1]
        # ESPnet's search leaves out blanks, too.
        spoken = ids[ids != 0].tolist()
        tokens = self._recognizer.speech2text.converter.ids2tokens(spoken)
        text = self._recognizer.results.text(tokens)
        return Sentence(text, one.score, length_of(one))


def fit_bonus(lists: Sentences, count_errors: CountErrors) -> FittedLength:
    """Find the bonus whose choice has the fewest errors.

    Of equal ones, the mean wins, then the bonus nearest to 0.

    Args:
        lists: Sentences of each utterance, as of :class:`CandidateLists`.
        count_errors: Of an utterance's name and a text.

    Returns:
        The bonus, and numbers of errors.
    """
    wrong = [[count_errors(k, one.text) for one in some] for k, some in lists.items()]
    options = sorted(BONUSES, key=lambda one: -1.0 if one is None else abs(one))
    # (options, utterances)
    table = np.array(
        [
            [each[_best(some, bonus)] for some, each in zip(lists.values(), wrong)]
            for bonus in options
        ]
    )
    totals = table.sum(axis=1)
    best = int(totals.argmin())
    held_out = 0
    for fold in range(FOLDS):
        rest = totals - table[:, fold::FOLDS].sum(axis=1)
        held_out += int(table[int(rest.argmin()), fold::FOLDS].sum())
    return FittedLength(
        options[best],
        sum(each[0] for each in wrong),
        int(totals[best]),
        held_out,
        sum(map(min, wrong)),
    )


def _best(some: Sequence[Sentence], bonus: float | None) -> int:
    scores = [length_score(one.score, one.n_tokens, bonus) for one in some]
    return scores.index(max(scores))
