"""Numbers of a matrix: rates by seed, comparisons, and what is missing."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ablation import plan
from ablation.cells import Cell, Epoch, Scores, read_cells
from ablation.matrix import Matrix
from ablation.significance import Difference, compare, mean_and_sd

SETS = ("dev", "test")
UNIT_NAMES = {"char": "CER", "word": "WER"}


@dataclass
class Summary:
    """A matrix with its cells.

    Attributes:
        matrix: the plan.
        cells: all existing cells, variants included.
    """

    matrix: Matrix
    cells: tuple[Cell, ...]
    _differences: dict[tuple[str, ...], Difference | None] = field(
        default_factory=dict, repr=False
    )

    @property
    def units(self) -> tuple[str, ...]:
        return ("char", "word") if self.matrix.words else ("char",)

    @property
    def first_decode(self) -> str:
        """The way of decoding of the headline and of the error classes."""
        return next(iter(self.matrix.decodes))

    @property
    def systems(self) -> list[str]:
        """All systems in the order of the tables; the matrix has the order of the runs.

        The baseline is first; the question is last, before external references.
        """
        systems = self.matrix.systems

        def rank(name: str) -> int:
            known = ["acd", "lrd", "hkd"]
            if name == self.matrix.baseline:
                return -2
            if systems[name].outside:
                return len(known)
            return known.index(name) if name in known else -1

        return sorted(systems, key=rank)

    @property
    def present(self) -> list[str]:
        """Systems that have a run."""
        return [name for name in self.systems if self.runs(name)]

    @property
    def contenders(self) -> list[str]:
        """Present systems that are neither the baseline nor external."""
        return [
            name
            for name in self.present
            if name != self.matrix.baseline and not self.matrix.systems[name].outside
        ]

    @property
    def question(self) -> str:
        """The system of the main question."""
        inside = [s for s in self.systems if not self.matrix.systems[s].outside]
        return inside[-1]

    def label(self, system: str) -> str:
        return self.matrix.systems[system].label

    def runs(self, system: str) -> list[Cell]:
        """Runs of a system without its variants, by seed."""
        return [c for c in self.cells if c.system == system and c.variant is None]

    def variants(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.variant is not None]

    def compared(self, cell: Cell) -> list[Cell]:
        """The runs to compare a variant with: another variant or a system."""
        assert cell.variant is not None
        against = self.matrix.variants[cell.variant].against
        # No variant has the name of a system.
        return [c for c in self.cells if (c.variant or c.system) == against]

    def scores(self, system: str, decode: str, name: str) -> dict[int, Scores]:
        """Scores of a decoded set by seed, for the runs that have it."""
        return scores_of(self.runs(system), decode, name)

    def rates(self, system: str, decode: str, name: str, unit: str) -> list[float]:
        """Error rates of all seeds, in per cent."""
        scores = self.scores(system, decode, name).values()
        return [one.rate(unit) for one in scores if unit in one.errors]

    def difference(
        self, system: str, decode: str, name: str, unit: str
    ) -> Difference | None:
        """A system against the baseline by their common seeds; None without any."""
        key = (system, decode, name, unit)
        if key not in self._differences:
            self._differences[key] = score_difference(
                self.scores(self.matrix.baseline, decode, name),
                self.scores(system, decode, name),
                unit,
            )
        return self._differences[key]

    def controlled(self, decode: str, name: str) -> list[tuple[str, str, Difference]]:
        """CER of systems against their controls, for pairs that have runs.

        Returns:
            System, control and difference, in the order of the matrix.
        """
        found = []
        for system, control in self.matrix.controls:
            base = self.scores(control, decode, name)
            difference = score_difference(
                base, self.scores(system, decode, name), "char"
            )
            if difference is not None:
                found.append((system, control, difference))
        return found

    def curve(
        self, system: str, value: "Callable[[Epoch], float | None]"
    ) -> list[list[tuple[Epoch, float]]]:
        """A value of the log by epoch, for each run that has it."""
        curves = []
        for cell in self.runs(system):
            points = [(epoch, value(epoch)) for epoch in cell.epochs]
            kept = [(e, v) for e, v in points if v is not None and np.isfinite(v)]
            if kept:
                curves.append(kept)
        return curves

    def missing(self) -> list[str]:
        """Planned results that no cell has, in words."""
        found = {cell.name: cell for cell in self.cells}
        lines = []
        for wanted in plan.cells(self.matrix):
            label = self.label(wanted.system)
            if wanted.variant:
                label += f", {self.matrix.variants[wanted.variant].label}"
                if any(cell.variant == wanted.variant for cell in self.cells):
                    continue
            if wanted.name not in found:
                lines.append(f"{label}, seed {wanted.seed}: no run")
        for cell in self.cells:
            lines += self._incomplete(cell)
        return lines

    def _incomplete(self, cell: Cell) -> list[str]:
        name = f"{self.label(cell.system)}, seed {cell.seed}"
        if cell.variant:
            name += f", {self.matrix.variants[cell.variant].label}"
        lines = []
        last, planned = cell.epochs[-1].number, self.matrix.epochs_of(cell.variant)
        if last != planned:
            lines.append(f"{name}: {last} epochs, not {planned}")
        for decode in self.matrix.decodes.values():
            decoded = cell.decodes.get(decode.name)
            lacking = [s for s in SETS if decoded is None or s not in decoded.sets]
            if lacking:
                lines.append(
                    f"{name}: {' and '.join(lacking)} not decoded {decode.label}"
                )
        return lines


def scores_of(cells: Iterable[Cell], decode: str, name: str) -> dict[int, Scores]:
    """Scores of a decoded set by seed, for the cells that have it."""
    return {
        cell.seed: cell.decodes[decode].sets[name]
        for cell in cells
        if decode in cell.decodes and name in cell.decodes[decode].sets
    }


def summarise(matrix: Matrix) -> Summary:
    """Read the cells of a matrix.

    Raises:
        UserError: a cell cannot be used.
    """
    return Summary(matrix, read_cells(matrix))


def score_difference(
    baseline: Mapping[int, Scores], system: Mapping[int, Scores], unit: str
) -> Difference | None:
    """Compare by the common seeds; None if there are none."""
    seeds = [
        seed
        for seed in baseline
        if seed in system
        and unit in baseline[seed].errors
        and unit in system[seed].errors
    ]
    if not seeds:
        return None
    return compare(
        baseline[seeds[0]].references[unit],
        np.stack([baseline[seed].errors[unit].sum(1) for seed in seeds]),
        np.stack([system[seed].errors[unit].sum(1) for seed in seeds]),
        seeds,
    )


def class_difference(
    baseline: Mapping[int, Scores],
    system: Mapping[int, Scores],
    kind: str,
    name: str,
) -> Difference | None:
    """Compare errors of one class, ``name`` of ``Scores.classes[kind]``.

    Returns:
        None where no reference has the class, or no seed is common to both.
    """
    seeds = [
        seed
        for seed in baseline
        if seed in system
        and kind in baseline[seed].classes
        and kind in system[seed].classes
    ]
    if not seeds:
        return None
    old, new = (
        np.stack([side[seed].classes[kind][name] for seed in seeds])  # (S, U, 2)
        for side in (baseline, system)
    )
    if not old[..., 0].any():
        return None
    return compare(old[0, :, 0], old[..., 1], new[..., 1], seeds)


def pooled(
    scores: Collection[Scores], kind: str
) -> dict[str, tuple[int, float | None]]:
    """Class to (reference tokens of one run, per cent of errors over all runs).

    Args:
        scores: one of each seed.
        kind: ``by_position``, ``by_frequency`` or ``by_sound``.
    """
    table: dict[str, list[int]] = {}
    for one in scores:
        for name, (tokens, wrong) in one.counts(kind).items():
            row = table.setdefault(name, [0, 0])
            row[0] += tokens
            row[1] += wrong
    return {
        name: (tokens // len(scores), 100 * wrong / tokens if tokens else None)
        for name, (tokens, wrong) in table.items()
    }


def shown(values: Sequence[float], digits: int = 1) -> str:
    """``31.2 ± 0.4``; ``31.2`` and a dash with one value; a dash without any."""
    if not values:
        return "missing"
    mean, deviation = mean_and_sd(values)
    spread = "–" if deviation is None else f"{deviation:.{digits}f}"
    return f"{mean:.{digits}f} ± {spread}".replace("-", "−")
