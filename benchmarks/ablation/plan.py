"""The command lines of a matrix: the preparation, and those of each cell."""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ablation.matrix import TRAIN_SET, TRAINING, Decode, Matrix
from espnet_cif_hkd.errors import UserError

# In options: the seed of the cell, such as that of a training before.
SEED = "{seed}"
# In options of a way of decoding: the folder of the trained model.
EXPERIMENT = "{exp}"


@dataclass(frozen=True)
class Cell:
    """One training: a system, perhaps with a variant, and a seed."""

    system: str
    seed: int
    variant: str | None = None

    @property
    def name(self) -> str:
        """The name in file names and on the command line: ``hkd_neg100_seed1``."""
        middle = f"_{self.variant}" if self.variant else ""
        return f"{self.system}{middle}_seed{self.seed}"


def cells(matrix: Matrix) -> Iterator[Cell]:
    """All cells: every system with the first seed, with the second, then variants.

    So an incomplete matrix can compare all systems by the seeds that it has.
    """
    for seed in matrix.seeds:
        for system in matrix.systems:
            yield Cell(system, seed)
    for variant in matrix.variants.values():
        yield Cell(variant.system, matrix.seeds[0], variant.name)


def result_file(matrix: Matrix, cell: Cell) -> Path:
    """The file of a cell's results; a cell with a file is done."""
    return matrix.results / "cells" / f"{cell.name}.json"


def named(matrix: Matrix, names: list[str]) -> list[Cell]:
    """The cells of these names, or all if none is given.

    Raises:
        UserError: A name is not one of the matrix.
    """
    known = {cell.name: cell for cell in cells(matrix)}
    for name in names:
        if name not in known:
            raise UserError(
                f"{matrix.path} has no cell {name}; it has {', '.join(known)}"
            )
    return [known[name] for name in names] or list(known.values())


def experiments(matrix: Matrix) -> str:
    """The folder of all its experiments, in the folder of the recipe."""
    return f"exp/ablation/{matrix.corpus}"


def missing(matrix: Matrix, names: list[str]) -> list[Cell]:
    """Those of ``named`` that have no results.

    Raises:
        UserError: A name is not one of the matrix.
    """
    cells = named(matrix, names)
    return [cell for cell in cells if not result_file(matrix, cell).exists()]


def experiment(matrix: Matrix, cell: Cell, top: Path) -> Path:
    """The folder that stage 11 writes."""
    return top / matrix.recipe / experiments(matrix) / f"asr_{cell.name}"


def _merge(words: list[str]) -> list[str]:
    """Join several ``--asr_args``, because ``run.sh`` uses only the last one."""
    rest, arguments = [], []
    given = iter(words)
    for word in given:
        if word == "--asr_args":
            arguments.append(next(given, ""))
        else:
            rest.append(word)
    joined = ["--asr_args", " ".join(arguments)] if arguments else []
    return [rest[0], *joined, *rest[1:]]


def _run(matrix: Matrix, *words: str) -> list[str]:
    # ESPnet's own asr.sh does not have this option; it runs all given stages.
    reuse = [] if os.environ.get("ESPNET_ROOT") else ["--reuse", "true"]
    shared = [*matrix.options, "--expdir", experiments(matrix), *reuse]
    return _merge(["./run.sh", *shared, *words])


def _stages(first: int, last: int) -> tuple[str, ...]:
    return "--stage", str(first), "--stop_stage", str(last)


def preparation(matrix: Matrix, todo: Iterable[Cell]) -> list[list[str]]:
    """Commands with outputs for all cells: data, token list, LM, shapes.

    Subsets of the data, and the shapes of a set, are made only for the cells of
    ``todo``.
    """
    first = matrix.systems[matrix.baseline].options
    commands = [_run(matrix, *first, *_stages(1, 5))]
    commands += [
        _run(matrix, *first, *decode.options, *_stages(6, 8))
        for decode in matrix.decodes.values()
        if _with_lm(decode)
    ]
    sizes = {matrix.subset_of(cell.variant) for cell in todo}
    shapes = (*matrix.statistics, *_stages(10, 10))
    if 0 in sizes:
        commands.append(_run(matrix, *first, *shapes))
    for size in sorted(sizes - {0}):
        commands.append(["bash", "local/data.sh", "--subset", str(size)])
        # Token list and LM are those of the complete set.
        for stages in (_stages(3, 4), shapes):
            words = _subset(matrix, size)
            commands.append(_run(matrix, *first, *words, *stages))
    return commands


def _subset(matrix: Matrix, size: int) -> list[str]:
    if not size:
        return []
    train_set = f"{TRAIN_SET}_{size}"
    stats = f"{experiments(matrix)}/asr_stats_{train_set}"
    return ["--train_set", train_set, "--asr_stats_dir", stats]


def _with_lm(decode: Decode) -> bool:
    return ("--use_lm", "true") in itertools.pairwise(decode.options)


def _options(matrix: Matrix, cell: Cell) -> list[str]:
    """Options of the training of a cell."""
    options = list(matrix.systems[cell.system].options)
    if cell.variant:
        options += matrix.variants[cell.variant].options
    options = [word.replace(SEED, str(cell.seed)) for word in options]
    options += _subset(matrix, matrix.subset_of(cell.variant))
    epochs = matrix.epochs_of(cell.variant)
    training = f"--max_epoch {epochs} --seed {cell.seed} --num_att_plot 0"
    return [*options, "--asr_args", training, "--asr_tag", cell.name]


def decoding(matrix: Matrix, cell: Cell, decode: Decode) -> list[list[str]]:
    """Decode a trained cell in one way, and score it."""
    folder = f"{experiments(matrix)}/asr_{cell.name}"
    before, options = (
        [word.replace(EXPERIMENT, folder) for word in words]
        for words in (decode.before, decode.options)
    )
    score = _run(
        matrix,
        *_options(matrix, cell),
        *options,
        *("--inference_tag", decode.name, "--inference_nj", "1"),
        *_stages(12, 13),
    )
    return [*([before] if before else []), score]


def commands(matrix: Matrix, cell: Cell) -> list[list[str]]:
    """Train, then decode and score in each way."""
    system = matrix.systems[cell.system]
    training = _stages(system.stage, TRAINING)
    return [
        *([list(system.before)] if system.before else []),
        _run(matrix, *_options(matrix, cell), *training),
        *(
            words
            for decode in matrix.decodes.values()
            for words in decoding(matrix, cell, decode)
        ),
    ]
