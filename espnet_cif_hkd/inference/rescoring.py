"""A language model of Hugging Face that chooses among the hypotheses of a search."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from espnet_cif_hkd.errors import UserError

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.results import Found
    from espnet_cif_hkd.teachers.lm.sentences import SentenceScorer

# What WEIGHTS of nbest.fit found for Gemma 3 270M on FOTAQ.
WEIGHT = 0.5


class Rescoring:
    """Sorts the hypotheses of an utterance by the sum of two scores.

    Args:
        scorer: The language model.
        weight: Of these log-probabilities.
        keep: Number of hypotheses to return.

    Raises:
        UserError: The weight is negative.
    """

    def __init__(
        self,
        scorer: "SentenceScorer",
        weight: float = WEIGHT,
        keep: int = 1,
    ):
        if weight < 0:
            raise UserError(f"rescore_weight is {weight}; it must be at least 0")
        self.scorer, self.weight, self.keep = scorer, weight, keep

    def __call__(self, found: Sequence["Found"]) -> list["Found"]:
        """Return the best hypotheses with their sums as scores, the best first.

        Of equal sums, the one that the search preferred comes first.
        """
        others = self.scorer([one.text for one in found])
        summed = [
            replace(one, score=(one.score or 0.0) + self.weight * other)
            for one, other in zip(found, others, strict=True)
        ]
        return sorted(summed, key=lambda one: -(one.score or 0.0))[: self.keep]


def rescoring_of(lm: str, weight: float, keep: int, device: str) -> Rescoring:
    """Open a language model for a recogniser.

    Args:
        lm: A folder, ``pkg://DISTRIBUTION/FOLDER``, or ``NAME@REVISION`` of the hub.
        weight: Of the LM.
        keep: Number of hypotheses to return.
        device: For example ``cpu``.

    Raises:
        UserError: The LM is missing or damaged, or no causal one.
    """
    from espnet_cif_hkd.teachers.lm.sentences import SentenceScorer

    name, _, revision = lm.partition("@")
    return Rescoring(
        SentenceScorer(name, revision or None, device=device), weight, keep
    )
