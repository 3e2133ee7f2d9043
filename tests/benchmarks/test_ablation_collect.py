"""Cells of an ablation: taken from a finished experiment, and how they are run."""

import fcntl
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from ablation import run
from ablation.cells import read_cells, write_cell
from ablation.collect import (
    collect,
    counts,
    read_sounds,
    teacher_hash,
    unfiltered,
)
from ablation.matrix import Matrix, read_matrix
from ablation.plan import Cell, experiment, experiments, missing, result_file
from finished_recipe import ASR_EXP, INFERENCE, finished

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.stages.sclite import align

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
    found, rows = collect(
        finished / ASR_EXP, finished, {"nolm": INFERENCE.name}, ("test",), "word"
    )
    decoded = found["decodes"]["nolm"]
    assert decoded["seconds"] > 0
    for unit, kind in (("char", "cer"), ("word", "wer")):
        result = (finished / INFERENCE / f"test/score_{kind}/result.txt").read_text()
        total = re.search(r"Sum +\| +(\d+) +(\d+) \|([ \d]+)\|", result)
        assert total is not None
        assert sum(row[f"{unit}_ref"] for row in rows) == int(total[2])
        _, substituted, deleted, inserted, *_ = map(int, total[3].split())
        expected = {"ins": inserted, "del": deleted, "sub": substituted}
        found_errors = {k: sum(row[f"{unit}_{k}"] for row in rows) for k in expected}
        assert found_errors == expected
    weights = torch.load(finished / ASR_EXP / "valid.acc.ave.pth", weights_only=True)
    assert (
        0 < found["parameters"]["inference"] <= sum(w.numel() for w in weights.values())
    )
    epochs = found["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
    assert all(epoch["seconds"] > 0 for epoch in epochs)
    assert {"loss", "acc"} <= set(epochs[0]["train"]) & set(epochs[0]["valid"])
    assert len(found["hashes"]["test"]) == 64

    named = {**found, "corpus": "tiny", "system": "cif", "seed": 1, "commands": ["x"]}
    write_cell(result_file(matrix, Cell("cif", 1)), named, rows)
    (cell,) = read_cells(matrix)
    scores = cell.decodes["nolm"].sets["test"]
    assert sorted(row["utterance"] for row in rows) == list(scores.utterances)
    wrong = sum(n for _, n in scores.counts("by_position").values())
    assert wrong == scores.errors["char"].sum() > 0


def test_a_set_that_validates_too_is_read_where_all_of_it_is(tmp_path: Path) -> None:
    assert unfiltered(tmp_path, "dev") == tmp_path / "dev"
    (tmp_path / "org/dev").mkdir(parents=True)
    assert unfiltered(tmp_path, "dev") == tmp_path / "org/dev"
    assert unfiltered(tmp_path, "test") == tmp_path / "test"


def _mandarin(recipe: Path, pinyin: str) -> None:
    files = {
        "dump/raw/train/text": "a 她 好\n",
        "data/train/pinyin": "a ta1 hao3\n",
        "dump/raw/test/text": "b 他好\n",
        "data/test/pinyin": pinyin,
        "dump/raw/train/utt2spk": "a s\n",
        "dump/raw/test/utt2spk": "b s\n",
    }
    for name, text in files.items():
        (recipe / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe / name).write_text(text, encoding="utf-8")


def test_readings_tell_homophones_from_other_errors(tmp_path: Path) -> None:
    _mandarin(tmp_path, "b ta1 , hao3 .\n")
    sounds = read_sounds(tmp_path, "data/{set}/pinyin", ("train", "test"))
    one = align("他好", "她她")
    aligned = {"char": {"s-b": one}, "word": {"s-b": one}}
    scores = {"token": {"s-b": (["他", "好"], ["她", "她"])}}
    (row,) = counts(scores, aligned, Counter("她好"), "char", sounds)
    found = {name: n for name, n in row.items() if name.startswith("sound_")}
    assert found == {
        "sound_homophone": 1,
        "sound_tone": 0,
        "sound_sound": 1,
        "sound_deleted": 0,
    }
    (row,) = counts(scores, aligned, Counter(), "char", None)
    assert not any(name.startswith("sound_") for name in row)
    sounds.spoken["s-b"].pop()
    with pytest.raises(UserError, match="s-b: 1 readings of 2 characters"):
        list(counts(scores, aligned, Counter(), "char", sounds))


def test_a_sentence_with_too_few_readings_is_named(tmp_path: Path) -> None:
    _mandarin(tmp_path, "b ta1\n")
    with pytest.raises(UserError, match="data/test/pinyin: b has 1 readings of 2 char"):
        read_sounds(tmp_path, "data/{set}/pinyin", ("train", "test"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_teacher_of_the_recipe_is_hashed_from_anywhere(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "downloads/mine").mkdir(parents=True)
    (tmp_path / "downloads/mine" / name).write_bytes(b"weights")
    criterion = {"criterion_conf": {"teacher": "downloads/mine"}, "criterion": "hkd"}
    found = teacher_hash({"model_conf": criterion}, tmp_path)
    assert found == hashlib.sha256(b"weights").hexdigest()
    assert teacher_hash({"model_conf": {"criterion": None}}, tmp_path) is None


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
    log = f"{experiments(matrix)}/cif_seed1.log"
    assert failure.startswith("cif_seed1: ./run.sh ")
    assert failure.endswith(f"ended with 3: see {recipe}/{log}")
    assert missing(matrix, []) == [Cell("cif", 1)]
    calls = (recipe / "calls").read_text()
    assert calls.count("--stage 1 --stop_stage 5") == 1
    assert calls.count("--stage 11 --stop_stage 11") == 2
    assert calls.count("--stage 12 --stop_stage 13") == 1


def test_collecting_again_keeps_the_versions_of_the_run(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [{"torch": "2.13"}, {"torch": "3"}]
    monkeypatch.setattr(run, "collect", lambda *_: ({"versions": versions.pop(0)}, []))
    file = result_file(matrix, Cell("cif", 1))
    for _ in range(2):
        run.keep(matrix, Cell("cif", 1))
        assert json.loads(file.read_text())["versions"] == {"torch": "2.13"}
    assert not versions


def test_scores_of_the_named_cells_are_collected_again(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        file = result_file(matrix, Cell("cif", seed))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    kept: list[Cell] = []
    monkeypatch.setattr(run, "keep", lambda _, cell: kept.append(cell))
    for names in (["cif_seed2"], []):
        monkeypatch.setattr(
            sys, "argv", ["run.py", str(matrix.path), "--again", *names]
        )
        run.main()
    assert kept == [Cell("cif", 2), Cell("cif", 1), Cell("cif", 2)]


def test_finished_cells_are_decoded_in_a_way_that_came_later(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Cell("cif", 2)
    result_file(matrix, done).parent.mkdir(parents=True, exist_ok=True)
    result_file(matrix, done).touch()
    kept: list[Cell] = []
    monkeypatch.setattr(run, "keep", lambda _, cell: kept.append(cell))
    name = next(iter(matrix.decodes))
    monkeypatch.setattr(sys, "argv", ["run.py", str(matrix.path), "--decode", name])
    run.main()
    assert kept == [done]
    (call,) = (run.TOP / matrix.recipe / "calls").read_text().splitlines()
    assert f"--inference_tag {name} " in call and "--asr_tag cif_seed2" in call
    assert call.endswith("--stage 12 --stop_stage 13")
    monkeypatch.setattr(sys, "argv", ["run.py", str(matrix.path), "--decode", "no"])
    with pytest.raises(SystemExit, match=f"decodes: no no; it has {name}"):
        run.main()


def test_only_the_ways_of_decoding_that_were_run_are_collected(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def collected(*args: Any) -> tuple[dict[str, Any], list[Any]]:
        seen.append(args[2])
        return {"versions": {}}, []

    monkeypatch.setattr(run, "collect", collected)
    cell = Cell("cif", 1)
    run.keep(matrix, cell)
    name = next(iter(matrix.decodes))
    decoded = experiment(matrix, cell, run.TOP) / name
    (decoded / "test/score_cer").mkdir(parents=True)
    (decoded / "org/dev/score_cer").mkdir(parents=True)
    (decoded / "test/score_cer/hyp.trn").touch()
    run.keep(matrix, cell)
    (decoded / "org/dev/score_cer/hyp.trn").touch()
    run.keep(matrix, cell)
    assert seen == [{}, {}, {name: name}]


def test_what_still_runs_is_not_started_a_second_time(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WAIT", 0.2)
    log = run.TOP / matrix.recipe / "cell.log"
    with log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"cell\.log is locked: another run\.py"):
            run.execute(["./run.sh"], log.parent, log, threads=1)
    run.execute(["./run.sh", "--stage", "11"], log.parent, log, threads=1)
    assert (log.parent / "calls").read_text() == "1: --stage 11\n"
    assert "./run.sh --stage 11" in log.read_text()


def test_a_process_that_is_about_to_end_is_waited_for(matrix: Matrix) -> None:
    log = run.TOP / matrix.recipe / "cell.log"
    # It inherits the lock and outlives the command by a second.
    words = ["bash", "-c", "sleep 1 & echo begun"]
    run.execute(words, log.parent, log, threads=1)
    run.execute(["echo", "next"], log.parent, log, threads=1)
    assert log.read_text().splitlines()[-1] == "next"
