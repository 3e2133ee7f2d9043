"""The scores of finished runs: one JSON file a cell, read and checked.

A cell is one training of one system with one seed, and what it decoded;
``collect.py`` writes the files, README.md says what is in them.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.errors import FREQUENCIES, SOUNDS, TENTHS
from ablation.matrix import Matrix
from espnet_cif_hkd.errors import UserError

FORMAT = 1
UNITS = ("char", "word")
_KINDS = {
    "by_position": TENTHS,
    "by_frequency": tuple(FREQUENCIES.values()),
    "by_sound": tuple(SOUNDS),
}
Counts = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Scores:
    """Counts of a decoded set, by utterance.

    Attributes:
        utterances: U ids, ascending.
        references: by unit, reference lengths ``(U,)``, int64.
        errors: by unit, insertions, deletions and substitutions ``(U, 3)``, int64.
        tokens: tokens of the reference and of the hypothesis ``(U, 2)``, int64.
    """

    utterances: tuple[str, ...]
    references: Mapping[str, NDArray[np.int64]]
    errors: Mapping[str, NDArray[np.int64]]
    tokens: NDArray[np.int64]

    def rate(self, unit: str) -> float:
        """Errors in per cent of the reference."""
        return 100 * float(self.errors[unit].sum() / self.references[unit].sum())


@dataclass(frozen=True)
class Analysis:
    """Where the errors of a decoded set are.

    Attributes:
        by_position, by_frequency, by_sound: class to (reference tokens, errors); the
            last is empty where readings are not known.
        utterances: of each utterance, by the name of such a table; those not kept are
            absent.
    """

    by_position: Counts
    by_frequency: Counts
    by_sound: Counts
    utterances: Mapping[str, Mapping[str, Counts]]


@dataclass(frozen=True)
class Decoded:
    """What one way of decoding gave.

    Attributes:
        seconds: of the search over all sets.
        sets: scores by the name of the set.
        analysis: by the name of the set.
    """

    seconds: float
    sets: Mapping[str, Scores]
    analysis: Mapping[str, Analysis]


@dataclass(frozen=True)
class Epoch:
    """One epoch: updates since the beginning, seconds of its own, means of the log."""

    number: int
    updates: int
    seconds: float
    train: Mapping[str, float]
    valid: Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """One run; ``decodes`` by the name of the way of decoding."""

    path: Path
    corpus: str
    system: str
    variant: str | None
    seed: int
    commands: tuple[str, ...]
    versions: Mapping[str, str]
    hashes: Mapping[str, str | None]
    parameters: Mapping[str, int]
    epochs: tuple[Epoch, ...]
    decodes: Mapping[str, Decoded]

    @property
    def name(self) -> str:
        """As the file is named."""
        middle = f"_{self.variant}" if self.variant else ""
        return f"{self.system}{middle}_seed{self.seed}"


class _Json:
    """A value inside a file; errors name the file and the way to the value."""

    def __init__(self, path: Path, where: str, value: Any) -> None:
        self.path, self.where, self.value = path, where, value

    def wrong(self, wanted: str) -> UserError:
        return UserError(f"{self.path}: {self.where or 'the file'}: {wanted}")

    def items(self) -> "list[tuple[str, _Json]]":
        if not isinstance(self.value, dict):
            raise self.wrong("must be an object")
        prefix = f"{self.where}." if self.where else ""
        return [
            (str(k), _Json(self.path, f"{prefix}{k}", v)) for k, v in self.value.items()
        ]

    def at(self, key: str) -> "_Json":
        found = dict(self.items())
        if key not in found:
            raise self.wrong(f"has no {key!r}; collect the cell again")
        return found[key]

    def has(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def list(self) -> "list[_Json]":
        if not isinstance(self.value, list):
            raise self.wrong("must be a list")
        return [
            _Json(self.path, f"{self.where}[{i}]", v) for i, v in enumerate(self.value)
        ]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("must be a text")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.wrong("must be a number")
        return float(self.value)

    def count(self) -> int:
        value = self.number()
        if not math.isfinite(value) or value < 0 or value != int(value):
            raise self.wrong("must be a whole number from 0")
        return int(value)

    def counts(self, length: int) -> tuple[int, ...]:
        found = tuple(item.count() for item in self.list())
        if len(found) != length:
            raise self.wrong(f"must be {length} numbers, not {len(found)}")
        return found

    def mapped(self, read: "Callable[[_Json], Any]") -> dict[str, Any]:
        return {key: read(item) for key, item in self.items()}


def load_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def read_cell(path: Path) -> Cell:
    """Read one cell.

    Raises:
        UserError: naming the file, the key and what is wrong.
    """
    top = _Json(path, "", load_json(path))
    if top.at("format").value != FORMAT:
        raise top.at("format").wrong(f"this report reads format {FORMAT}")
    analyses = top.at("analysis")
    decodes = {}
    for name, item in top.at("decodes").items():
        kept = analyses.at(name).items() if analyses.has(name) else []
        decodes[name] = Decoded(
            seconds=item.at("seconds").number(),
            sets=item.at("sets").mapped(_scores),
            analysis={one: _analysis(found) for one, found in kept},
        )
    epochs = tuple(_epoch(item) for item in top.at("epochs").list())
    if not epochs:
        raise top.at("epochs").wrong("there is none")
    cell = Cell(
        path=path,
        corpus=top.at("corpus").text(),
        system=top.at("system").text(),
        variant=top.at("variant").text() if top.value.get("variant") else None,
        seed=top.at("seed").count(),
        commands=tuple(item.text() for item in top.at("commands").list()),
        versions=top.at("versions").mapped(_Json.text),
        hashes=top.at("hashes").mapped(
            lambda item: None if item.value is None else item.text()
        ),
        parameters=top.at("parameters").mapped(_Json.count),
        epochs=epochs,
        decodes=decodes,
    )
    for key in ("inference", "training"):
        top.at("parameters").at(key)
    if path.name != f"{cell.name}.json":
        raise UserError(f"{path}: it holds {cell.name}; the name must be that")
    return cell


def _scores(item: _Json) -> Scores:
    rows = sorted(item.at("utterances").items())
    if not rows:
        raise item.at("utterances").wrong("there is none")
    units = [unit for unit in UNITS if unit in rows[0][1].value]
    table = {
        unit: np.array([row.at(unit).counts(4) for _, row in rows], dtype=np.int64)
        for unit in units
    }
    for unit, counted in table.items():
        if not counted[:, 0].sum():
            raise item.wrong(f"the references have no {unit}")
    lengths = [
        (row.at("ref_tokens").count(), row.at("hyp_tokens").count()) for _, row in rows
    ]
    return Scores(
        utterances=tuple(utt for utt, _ in rows),
        references={unit: counted[:, 0] for unit, counted in table.items()},
        errors={unit: counted[:, 1:] for unit, counted in table.items()},
        tokens=np.array(lengths, dtype=np.int64),
    )


def _classes(item: _Json, known: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    found = item.mapped(lambda one: one.counts(2))
    for name in found:
        if name not in known:
            raise item.wrong(f"unknown class {name!r}; known are {', '.join(known)}")
    return {name: found[name] for name in known if name in found}


def _analysis(item: _Json) -> Analysis:
    tables, single = {}, {}
    for kind, classes in _KINDS.items():
        if kind == "by_sound" and not item.has(kind):
            tables[kind] = {}
            continue
        tables[kind] = _classes(item.at(kind), classes)
        if item.has(f"{kind}_utterances"):
            rows = item.at(f"{kind}_utterances").items()
            single[kind] = {utt: _classes(row, classes) for utt, row in rows}
    return Analysis(**tables, utterances=single)  # type: ignore[arg-type]


def _epoch(item: _Json) -> Epoch:
    return Epoch(
        number=item.at("epoch").count(),
        updates=item.at("updates").count(),
        seconds=item.at("seconds").number(),
        train=item.at("train").mapped(_Json.number),
        valid=item.at("valid").mapped(_Json.number),
    )


def read_cells(matrix: Matrix) -> tuple[Cell, ...]:
    """All cells of a matrix that there are, in the order of the matrix.

    Raises:
        UserError: a cell is not of the matrix, or two decoded different references.
    """
    order = list(matrix.systems), [None, *matrix.variants]
    found = []
    for path in sorted((matrix.results / "cells").glob("*.json")):
        cell = read_cell(path)
        if cell.corpus != matrix.corpus:
            raise UserError(f"{path}: corpus: {cell.corpus} is not {matrix.corpus}")
        if cell.system not in order[0]:
            raise UserError(f"{path}: system: {matrix.path} has no {cell.system}")
        if cell.variant not in order[1]:
            raise UserError(f"{path}: variant: {matrix.path} has no {cell.variant}")
        if cell.variant is None and cell.seed not in matrix.seeds:
            raise UserError(
                f"{path}: seed: {matrix.path} has no {cell.seed}; all runs count: add "
                "it there"
            )
        for name in cell.decodes:
            if name not in matrix.decodes:
                raise UserError(f"{path}: decodes: {matrix.path} has no {name}")
        found.append(cell)
    _same_references(found)
    return tuple(
        sorted(
            found,
            key=lambda one: (
                order[1].index(one.variant),
                order[0].index(one.system),
                one.seed,
            ),
        )
    )


def read_tuning(matrix: Matrix) -> list[dict[str, Any]]:
    """Runs that were made to choose settings; none if they were not noted.

    Raises:
        UserError: an entry lacks its name or its figures of dev, or rates are
            fractions.
    """
    path = matrix.results / "tuning.json"
    if not path.exists():
        return []
    entries = _Json(path, "", load_json(path)).list()
    for entry in entries:
        entry.at("name").text()
        for name, value in entry.at("dev").items():
            if name.startswith(("cer", "wer")) and 0 < value.number() < 1.5:
                raise value.wrong("looks like a fraction; error rates are in per cent")
    return [entry.value for entry in entries]


def _same_references(cells: list[Cell]) -> None:
    """Rates are compared, so all must be of the same sentences."""
    first: dict[tuple[str, str], tuple[Cell, Scores]] = {}
    counted: dict[tuple[str, str], tuple[Cell, dict[str, int]]] = {}
    for cell in cells:
        for decoded in cell.decodes.values():
            for name, analysis in decoded.analysis.items():
                for kind in _KINDS:
                    classes = getattr(analysis, kind)
                    tokens = {key: row[0] for key, row in classes.items()}
                    whose, sizes = counted.setdefault((name, kind), (cell, tokens))
                    if tokens != sizes:
                        raise UserError(
                            f"{cell.path}: {name}.{kind}: its classes have other sizes "
                            f"than those of {whose.path}: collect both again"
                        )
            for name, scores in decoded.sets.items():
                for unit, lengths in scores.references.items():
                    other, known = first.setdefault((name, unit), (cell, scores))
                    if known.utterances != scores.utterances or not np.array_equal(
                        known.references[unit], lengths
                    ):
                        raise UserError(
                            f"{cell.path}: {name}: its references are not those of "
                            f"{other.path}: both must be of one version of the data"
                        )
