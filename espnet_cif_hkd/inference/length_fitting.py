"""Fit the bonus with which the decoder chooses the number of tokens."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.nbest import Hypothesis, NBest, choose, fit
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.speech import Samples
from espnet_cif_hkd.search.greedy import GreedyHypothesis
from espnet_cif_hkd.search.lengths import Candidate, LengthSearch, choosing

# What a fit tries.
BONUSES = tuple(round(0.1 * n, 1) for n in range(-10, 31))
FOLDS = 5

Errors = Callable[[str, str], int]


@dataclass(frozen=True)
class FittedLength:
    """Result of :func:`fit_bonus`.

    Attributes:
        bonus: With the fewest errors.
        before: Errors of the numbers of tokens that fire by themselves.
        errors: Errors with ``bonus``.
        held_out: Errors of utterances that were left out of a fit, five times a fifth.
        least: Errors of the best candidates.
    """

    bonus: float
    before: int
    errors: int
    held_out: int
    least: int


@dataclass(frozen=True)
class _Recorder(LengthSearch):
    """Keeps the candidates of each search; what fires by itself stays the result."""

    seen: list[Sequence[Candidate]] = dataclasses.field(default_factory=list)

    def choose(self, candidates: Sequence[Candidate]) -> GreedyHypothesis:
        self.seen.append(candidates)
        return candidates[0].hypothesis


class CandidateLists:
    """Lists the candidates of utterances.

    Args:
        recognizer: Its search is greedy.
        slack: As of :class:`LengthSearch`.

    Raises:
        UserError: It is no CIF model.
    """

    def __init__(self, recognizer: Recognizer, slack: int) -> None:
        self._recognizer, self._slack = recognizer, slack
        decoder = recognizer.speech2text.asr_model.decoder
        if not isinstance(decoder, CIFDecoder):
            raise UserError(
                f"{recognizer.model_file}: no tokens fire in this model: its decoder "
                f"is {type(decoder).__name__}; length_conf is for CIF"
            )
        self._decoder = decoder

    def __call__(self, samples: Samples) -> list[Hypothesis]:
        """Return the sentence of each number of tokens; the first fires by itself."""
        frames = self._recognizer.frames(samples)
        if frames is None:
            return [Hypothesis("", "", "", 0.0)]
        recorder = _Recorder(self._slack)
        with choosing(self._decoder, recorder):
            self._recognizer.speech2text.search([frames.hidden])
        return [self._hypothesis(one.hypothesis) for one in recorder.seen[0]]

    def _hypothesis(self, one: GreedyHypothesis) -> Hypothesis:
        ids = one.yseq[1:-1].tolist()
        tokens = self._recognizer.speech2text.converter.ids2tokens(ids)
        # ESPnet's search leaves out blanks, too.
        spoken = [token for token, n in zip(tokens, ids, strict=True) if n != 0]
        text = self._recognizer.results.text(spoken)
        return Hypothesis(text, " ".join(tokens), " ".join(map(str, ids)), one.score)


def fit_bonus(lists: NBest, errors: Errors) -> FittedLength:
    """Find the bonus whose choice has the fewest errors.

    Args:
        lists: Candidates of each utterance, as of :class:`CandidateLists`.
        errors: Counts the errors of a text, by the name of its utterance.

    Returns:
        The bonus, and numbers of errors.
    """
    others = {one.text: 0.0 for some in lists.values() for one in some}
    found = fit(lists, others, errors, [0.0], BONUSES)
    keys = list(lists)
    held_out = 0
    for fold in range(FOLDS):
        rest = {key: lists[key] for n, key in enumerate(keys) if n % FOLDS != fold}
        bonus = fit(rest, others, errors, [0.0], BONUSES).bonus if rest else 0.0
        held_out += _errors(
            {key: lists[key] for key in keys[fold::FOLDS]}, others, errors, bonus
        )
    return FittedLength(found.bonus, found.first, found.errors, held_out, found.least)


def _errors(
    lists: NBest, others: Mapping[str, float], errors: Errors, bonus: float
) -> int:
    chosen = choose(lists, others, 0.0, bonus)
    return sum(errors(key, one.text) for key, (one, _) in chosen.items())
