"""Error rates of the stage measure, equal to those of stage 13 and of sclite.

The metrics of ESPnet 3 count the edits of the cheapest alignment by the package jiwer,
where all edits cost the same; sclite's costs differ, and so may the sums.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet2.text.build_tokenizer import build_tokenizer
from espnet3.components.metrics.base_metric import BaseMetric
from espnet3.contract import Field

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.tables import single_spaced
from espnet_cif_hkd.recipe.stages.report import ScoredUtterance, result_text
from espnet_cif_hkd.recipe.stages.sclite import align


class CER(BaseMetric):
    """Character error rate in per cent, with two decimal places.

    A space is a character, as in ESPnet 2. ``result_cer.txt`` in the folder of the test
    set has all alignments.

    Args:
        fold: Whether case is ignored, as sclite does by default.
    """

    unit, name = "char", "CER"
    inputs = (Field("ref", "text"), Field("hyp", "text"))
    outputs: tuple[Field, ...] = (Field("CER", "number"),)

    def __init__(self, fold: bool = True) -> None:
        super().__init__()
        self.fold = fold
        self.tokenizer = build_tokenizer(self.unit)
        self.add_state("errors", 0, "sum")
        self.add_state("units", 0, "sum")
        self._names: list[str] = []
        self._scored: list[ScoredUtterance] = []

    def reset(self) -> None:
        """Set all counts to zero."""
        super().reset()
        self._names, self._scored = [], []

    def iter_inputs(
        self, data: dict[str, Path], *keys: str
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the rows of the files; their names are kept for the results."""
        for name, row in super().iter_inputs(data, *keys):
            self._names.append(name)
            yield name, row

    def update(self, *, ref: Sequence[str], hyp: Sequence[str]) -> None:
        """Add the errors of some utterances.

        Args:
            ref: References.
            hyp: Hypotheses in the same order.
        """
        for one, other in zip(ref, hyp, strict=True):
            found = align(self._units(one), self._units(other), fold=self.fold)
            self.errors += found.errors
            self.units += found.n_ref
            if self.collect_artifacts:
                name = self._names[len(self._scored)]
                self._scored.append(ScoredUtterance("all", name, found))

    def _units(self, text: str) -> list[str]:
        return list(self.tokenizer.text2tokens(single_spaced(text)))

    def compute(self) -> dict[str, float]:
        """Return the error rate.

        Raises:
            UserError: The references are empty.
        """
        if not self.units:
            raise UserError(f"{self.name}: the references of the test set are empty")
        return {self.name: round(100 * self.errors / self.units, 2)}

    def write_artifacts(self, test_dir: Path) -> None:
        """Write the alignments in the form of sclite."""
        target = test_dir / f"result_{self.name.lower()}.txt"
        write_text(target, result_text(self._scored, str(test_dir / "text.scp")))


class WER(CER):
    """Word error rate in per cent; otherwise as :class:`CER`."""

    unit, name = "word", "WER"
    outputs = (Field("WER", "number"),)
