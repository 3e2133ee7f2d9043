"""The results of finished runs, read and checked.

A cell is one training of one system with one seed, and what it decoded. Its file
``cells/NAME.json`` has the training log, versions and commands; its utterances are in
the table of the corpus (``utterances.py``). ``collect.py`` makes both.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation import plan, utterances
from ablation.checked import Json, load_json
from ablation.errors import FREQUENCIES, SOUNDS, TENTHS
from ablation.matrix import Matrix
from ablation.utterances import UNITS, Block, Row, Table
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import write_text

FORMAT = 2
Counts = Mapping[str, tuple[int, int]]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Counts of a decoded set.

    Attributes:
        utterances: U ids, ascending.
        references: by unit, reference lengths ``(U,)``.
        errors: by unit, insertions, deletions and substitutions ``(U, 3)``.
        tokens: tokens of the reference and of the hypothesis ``(U, 2)``.
        by_position: tenth of the reference to (reference tokens, errors).
        classes: ``by_frequency`` and, where readings are known, ``by_sound``: class to
            reference tokens and errors, ``(U, 2)``.
    """

    utterances: tuple[str, ...]
    references: Mapping[str, Ints]
    errors: Mapping[str, Ints]
    tokens: Ints
    by_position: Counts
    classes: Mapping[str, Mapping[str, Ints]]

    def rate(self, unit: str) -> float:
        """Errors in per cent of the reference."""
        return 100 * float(self.errors[unit].sum() / self.references[unit].sum())

    def counts(self, kind: str) -> Counts:
        """Class to (reference tokens, errors) of all utterances.

        Args:
            kind: ``by_position``, ``by_frequency`` or ``by_sound``.
        """
        if kind == "by_position":
            return self.by_position
        found = self.classes.get(kind, {})
        return {name: tuple(both.sum(0).tolist()) for name, both in found.items()}


@dataclass(frozen=True)
class Decoded:
    """The results of one way of decoding.

    Attributes:
        seconds: of the search over all sets.
        sets: scores by the name of the set.
    """

    seconds: float
    sets: Mapping[str, Scores]


@dataclass(frozen=True)
class Epoch:
    """One epoch: updates since the start of training, its seconds, means of the log."""

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
        """The name of its file."""
        return plan.Cell(self.system, self.seed, self.variant).name


def table_file(matrix: Matrix) -> Path:
    """The table of single utterances of a corpus."""
    return matrix.results / "utterances.csv.gz"


def write_cell(file: Path, found: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write what ``collect.py`` found of a run.

    The file of the cell is written last: a cell that has a file is complete. A lock
    lets several processes write at the same time.

    Args:
        file: ``results/CORPUS/cells/NAME.json``.
        found: the JSON value.
        rows: its utterances.

    Raises:
        UserError: the table of the corpus cannot be used.
    """
    results = file.parent.parent
    with utterances.locked(results):
        utterances.replace(results / "utterances.csv.gz", file.stem, rows)
        text = json.dumps(found, sort_keys=True, separators=(",", ":"))
        write_text(file, text + "\n")


def read_cell(path: Path, table: Table) -> Cell:
    """Read one cell.

    Args:
        path: its JSON file.
        table: of the corpus.

    Raises:
        UserError: naming the file, the key and what is wrong.
    """
    top = Json(path, "", load_json(path))
    if top.at("format").value != FORMAT:
        raise top.at("format").wrong(
            f"this report reads format {FORMAT}; collect the cell again"
        )
    system, seed = top.at("system").text(), top.at("seed").count()
    variant = top.at("variant").text() if top.value.get("variant") else None
    name = plan.Cell(system, seed, variant).name
    if path.name != f"{name}.json":
        raise UserError(f"{path}: it holds {name}; the name must be that")
    epochs = tuple(_epoch(item) for item in top.at("epochs").list())
    if not epochs:
        raise top.at("epochs").wrong("there is none")
    for key in ("inference", "training"):
        top.at("parameters").at(key)
    return Cell(
        path=path,
        corpus=top.at("corpus").text(),
        system=system,
        variant=variant,
        seed=seed,
        commands=tuple(item.text() for item in top.at("commands").list()),
        versions=top.at("versions").mapped(Json.text),
        hashes=top.at("hashes").mapped(
            lambda item: None if item.value is None else item.text()
        ),
        parameters=top.at("parameters").mapped(Json.count),
        epochs=epochs,
        decodes={
            way: _decoded(item, table, name, way)
            for way, item in top.at("decodes").items()
        },
    )


def _decoded(item: Json, table: Table, cell: str, decode: str) -> Decoded:
    sets = {}
    for name, positions in item.at("by_position").items():
        block = table.get((cell, decode, name))
        if block is None:
            raise positions.wrong(
                "the table has no such utterances; collect the cell again"
            )
        sets[name] = _scores(block, positions)
    return Decoded(item.at("seconds").number(), sets)


def _scores(block: Block, positions: Json) -> Scores:
    by_position = positions.mapped(lambda one: one.counts(2))
    for name in by_position:
        if name not in TENTHS:
            raise positions.wrong(f"unknown class {name!r}; known: {', '.join(TENTHS)}")
    errors = {
        unit: block.counts(*(f"{unit}_{kind}" for kind in ("ins", "del", "sub")))
        for unit in UNITS
    }
    references = {unit: block.counts(f"{unit}_ref")[:, 0] for unit in UNITS}
    for unit, lengths in references.items():
        if not lengths.sum():
            raise positions.wrong(f"the references have no {unit}")
    classes = {
        "by_frequency": {
            name: block.counts(f"seen_{name}_ref", f"seen_{name}_wrong")
            for name in FREQUENCIES.values()
        }
    }
    if block.sounded:
        classes["by_sound"] = {
            name: block.counts("char_ref", f"sound_{name}") for name in SOUNDS
        }
    return Scores(
        utterances=block.utterances,
        references=references,
        errors=errors,
        tokens=block.counts("ref_tokens", "hyp_tokens"),
        by_position={name: by_position[name] for name in TENTHS if name in by_position},
        classes=classes,
    )


def _epoch(item: Json) -> Epoch:
    return Epoch(
        number=item.at("epoch").count(),
        updates=item.at("updates").count(),
        seconds=item.at("seconds").number(),
        train=item.at("train").mapped(Json.number),
        valid=item.at("valid").mapped(Json.number),
    )


def read_cells(matrix: Matrix) -> tuple[Cell, ...]:
    """All cells of a matrix that exist, in the order of the matrix.

    Raises:
        UserError: a cell is not of the matrix, or two decoded different references.
    """
    order = list(matrix.systems), [None, *matrix.variants]
    table = utterances.read(table_file(matrix))
    found = []
    for path in sorted((matrix.results / "cells").glob("*.json")):
        cell = read_cell(path, table)
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
    """Runs that were made to choose settings; none if none were noted.

    Raises:
        UserError: an entry lacks its name or its figures of dev, or rates are
            fractions.
    """
    path = matrix.results / "tuning.json"
    if not path.exists():
        return []
    entries = Json(path, "", load_json(path)).list()
    for entry in entries:
        entry.at("name").text()
        for name, value in entry.at("dev").items():
            if name.startswith(("cer", "wer")) and 0 < value.number() < 1.5:
                raise value.wrong("looks like a fraction; error rates are in per cent")
    return [entry.value for entry in entries]


def _same_references(cells: list[Cell]) -> None:
    """Rates are compared, so all must be of the same sentences."""
    first: dict[str, tuple[Cell, Scores]] = {}
    for cell in cells:
        for decoded in cell.decodes.values():
            for name, scores in decoded.sets.items():
                other, known = first.setdefault(name, (cell, scores))
                if not _same(known, scores):
                    raise UserError(
                        f"{cell.path}: {name}: its references are not those of "
                        f"{other.path}: collect both from one version of the data"
                    )


def _same(one: Scores, other: Scores) -> bool:
    return (
        one.utterances == other.utterances
        and all(np.array_equal(one.references[u], other.references[u]) for u in UNITS)
        and _sizes(one) == _sizes(other)
    )


def _sizes(scores: Scores) -> dict[str, dict[str, int]]:
    kinds = ("by_position", "by_frequency", "by_sound")
    return {
        kind: {name: n for name, (n, _) in scores.counts(kind).items()}
        for kind in kinds
    }
