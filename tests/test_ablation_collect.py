"""Cells of an ablation: taken from a finished experiment, and how they are run."""

import fcntl
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from finished_recipe import ASR_EXP, INFERENCE, finished

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from ablation import run
from ablation.cells import read_cells
from ablation.collect import collect, unfiltered
from ablation.matrix import Matrix, read_matrix
from ablation.plan import Cell, missing, result_file

from espnet_cif_hkd.errors import UserError

__all__ = ["finished"]

TEXT = """
corpus: tiny
title: tiny
recipe: recipe
baseline: cif
seeds: [1, 2]
epochs: 2
systems:
  cif: {label: CIF, options: --system cif}
decodes:
  nolm: {label: without LM}
"""


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Matrix:
    """A matrix of two cells; its recipe is a script that notes how it was called."""
    (tmp_path / "tiny.yaml").write_text(TEXT)
    (tmp_path / "recipe").mkdir()
    script = tmp_path / "recipe/run.sh"
    script.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS: $*" >> calls\n')
    script.chmod(0o755)
    monkeypatch.setattr(run, "TOP", tmp_path)
    return read_matrix(tmp_path / "tiny.yaml")


def test_a_finished_experiment_becomes_a_cell(finished: Path, matrix: Matrix) -> None:
    found = collect(
        finished / ASR_EXP, finished, {"nolm": INFERENCE.name}, ("test",), "word"
    )
    decoded = found["decodes"]["nolm"]
    rows = decoded["sets"]["test"]["utterances"]
    assert decoded["seconds"] > 0
    for unit, kind in (("char", "cer"), ("word", "wer")):
        result = (finished / INFERENCE / f"test/score_{kind}/result.txt").read_text()
        total = re.search(r"Sum +\| +(\d+) +(\d+) \|([ \d]+)\|", result)
        assert total is not None
        assert sum(row[unit][0] for row in rows.values()) == int(total[2])
        _, substituted, deleted, inserted, *_ = map(int, total[3].split())
        assert [sum(row[unit][k] for row in rows.values()) for k in (1, 2, 3)] == [
            inserted,
            deleted,
            substituted,
        ]
    weights = torch.load(finished / ASR_EXP / "valid.acc.ave.pth", weights_only=True)
    assert (
        0 < found["parameters"]["inference"] <= sum(w.numel() for w in weights.values())
    )
    epochs = found["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
    assert all(epoch["seconds"] > 0 for epoch in epochs)
    assert {"loss", "acc"} <= set(epochs[0]["train"]) & set(epochs[0]["valid"])
    assert len(found["hashes"]["test"]) == 64

    whole = {**found, "corpus": "tiny", "system": "cif", "seed": 1, "commands": ["x"]}
    file = result_file(matrix, Cell("cif", 1))
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(whole))
    (cell,) = read_cells(matrix)
    assert cell.seed == 1


def test_a_set_that_validates_too_is_read_where_all_of_it_is(tmp_path: Path) -> None:
    assert unfiltered(tmp_path, "dev") == tmp_path / "dev"
    (tmp_path / "org/dev").mkdir(parents=True)
    assert unfiltered(tmp_path, "dev") == tmp_path / "org/dev"
    assert unfiltered(tmp_path, "test") == tmp_path / "test"


def test_cells_are_run_side_by_side_and_one_that_fails_stops_no_other(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = run.TOP / matrix.recipe
    script = recipe / "run.sh"
    script.write_text(script.read_text() + 'case "$*" in *seed1*) exit 3 ;; esac\n')

    def keep(matrix: Matrix, cell: Cell) -> None:
        result_file(matrix, cell).parent.mkdir(parents=True, exist_ok=True)
        result_file(matrix, cell).touch()

    monkeypatch.setattr(run, "keep", keep)
    (failure,) = run.work(matrix, missing(matrix, []), jobs=2, threads=1)
    assert failure.startswith("cif_seed1: ./run.sh ")
    assert failure.endswith(f"ended with 3: see {recipe}/exp/ablation/cif_seed1.log")
    assert missing(matrix, []) == [Cell("cif", 1)]
    calls = (recipe / "calls").read_text()
    assert calls.count("--stage 1 --stop_stage 5") == 1
    assert calls.count("--stage 11 --stop_stage 11") == 2
    assert calls.count("--stage 12 --stop_stage 13") == 1


def test_what_still_runs_is_not_begun_a_second_time(matrix: Matrix) -> None:
    log = run.TOP / matrix.recipe / "cell.log"
    with log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"cell\.log is locked: another run\.py"):
            run.execute(["./run.sh"], log.parent, log, threads=1)
    run.execute(["./run.sh", "--stage", "11"], log.parent, log, threads=1)
    assert (log.parent / "calls").read_text() == "1: --stage 11\n"
    assert "./run.sh --stage 11" in log.read_text()
