"""A language model of Hugging Face that chooses among the hypotheses of a search."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.nbest import WEIGHT, require_finite, totals

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.results import Found
    from espnet_cif_hkd.teachers.lm.sentences import SentenceScorer


class Rescoring:
    """Sorts the hypotheses of an utterance by the sum of two scores.

    Args:
        scorer: The language model.
        weight: Of its log-probabilities.
        bonus: What each token adds.
        keep: Number of hypotheses to return.

    Raises:
        UserError: The weight is negative, or a number is not finite.
    """

    def __init__(
        self,
        scorer: "SentenceScorer",
        weight: float = WEIGHT,
        bonus: float = 0.0,
        keep: int = 1,
    ):
        require_finite(rescore_weight=weight, rescore_bonus=bonus)
        if weight < 0:
            raise UserError(f"rescore_weight is {weight}; it must be at least 0")
        self.scorer, self.weight, self.bonus, self.keep = scorer, weight, bonus, keep

    def __call__(self, found: Sequence["Found"]) -> list["Found"]:
        """Return the hypotheses with the best sums, the best first.

        Of equal sums, the one that the search preferred comes first.

        Args:
            found: Hypotheses of one utterance, the best first.
        """
        sums = totals(
            [one.score or 0.0 for one in found],
            self.scorer([one.text for one in found]),
            [len(one.ids) for one in found],
            self.weight,
            self.bonus,
        )
        best = np.argsort(-sums, kind="stable")[: self.keep]
        return [found[n] for n in best]


def scorer_of(lm: str, device: str, case: str = "auto") -> "SentenceScorer":
    """Return a scorer; the first scores read the language model.

    Args:
        lm: A folder, ``pkg://DISTRIBUTION/FOLDER``, or ``NAME@REVISION`` of the hub.
        device: For example ``cpu``.
        case: See :class:`SentenceScorer`.

    Raises:
        UserError: There is no such LM.
    """
    from espnet_cif_hkd.teachers.lm.sentences import SentenceScorer

    name, _, revision = lm.rpartition("@")
    if Path(lm).expanduser().is_dir() or not name:
        name, revision = lm, ""
    return SentenceScorer(name, revision or None, case, device)
