"""The table of single utterances: equal bytes, several writers, damaged files."""

import gzip
import json
import multiprocessing
import os

import ablation_cells
import pytest
from ablation import cells, tried, utterances

from espnet_cif_hkd.errors import UserError

ROWS = ablation_cells.cell("cif", 1, decodes=("nolm",))["rows"]


@pytest.fixture
def table(tmp_path):
    return tmp_path / "results/fotaq/utterances.csv.gz"


def add(table, name, rows=ROWS):
    cells.write_cell(table.parent / f"cells/{name}.json", {"name": name}, rows)


def test_the_order_of_writing_does_not_change_the_bytes(table, tmp_path):
    other = tmp_path / "other/fotaq/utterances.csv.gz"
    for name in ("a", "b", "c"):
        add(table, name)
    for name, rows in (("c", ROWS), ("b", ROWS[:5]), ("a", ROWS[::-1]), ("b", ROWS)):
        add(other, name, rows)
    assert table.read_bytes() == other.read_bytes()
    assert table.read_bytes()[4:8] == bytes(4)  # no time stamp in the gzip header


def test_a_repeated_write_leaves_the_file_alone(table):
    add(table, "a")
    os.utime(table, ns=(1, 1))
    add(table, "a")
    assert table.stat().st_mtime_ns == 1
    add(table, "a", ROWS[1:])
    assert table.stat().st_mtime_ns != 1


def test_rows_of_other_cells_stay(table):
    for name, rows in (("a", ROWS[:3]), ("b", ROWS[:7]), ("a", ROWS[:2])):
        add(table, name, rows)
    found = utterances.read(table)
    assert {key: len(block.utterances) for key, block in found.items()} == {
        ("a", "nolm", "dev"): 2,
        ("b", "nolm", "dev"): 7,
    }


@pytest.mark.slow
def test_cells_that_finish_at_once_are_all_kept(table):
    context = multiprocessing.get_context("fork")
    names = [f"cell{number}" for number in range(6)]
    writers = [context.Process(target=add, args=(table, name)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert {cell for cell, _, _ in utterances.read(table)} == set(names)
    assert {file.stem for file in (table.parent / "cells").iterdir()} == set(names)
    assert not list(table.parent.glob("*.part"))


@pytest.mark.slow
def test_tuning_runs_that_are_recorded_at_once_are_all_kept(tmp_path):
    path = tmp_path / "tuning.json"
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=tried.add, args=(path, {"name": name, "value": number}))
        for number, name in enumerate("abcdef")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    tried.add(path, {"name": "c", "value": 9})
    found = {one["name"]: one["value"] for one in json.loads(path.read_text())}
    assert found == {"a": 0, "b": 1, "c": 9, "d": 3, "e": 4, "f": 5}


def test_a_failed_write_keeps_the_old_table_and_no_cell(table, monkeypatch):
    add(table, "a")
    before = table.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(utterances.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        add(table, "b")
    assert table.read_bytes() == before
    assert [file.stem for file in (table.parent / "cells").iterdir()] == ["a"]


def test_readings_belong_to_all_cells_of_a_corpus_or_to_none(table):
    sounded = [{**row, **dict.fromkeys(utterances.SOUNDED, 1)} for row in ROWS]
    add(table, "a")
    with pytest.raises(UserError, match="its cells and b must all have readings"):
        add(table, "b", sounded)
    add(table, "a", sounded)
    add(table, "b", sounded)
    block = utterances.read(table)["b", "nolm", "test"]
    assert block.sounded and block.counts("sound_tone").tolist() == [[1]] * 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("char_ref", "chars"), "line 1: other columns"),
        (lambda text: text.replace("dev0003,nolm,a,", "dev0003,nolm,a,-"), "line 5: "),
        (lambda text: text.replace("dev0003,nolm,a,", "dev0003,nolm,a,x"), "not a who"),
        (lambda text: text.replace("dev0003", "dev0002"), "line 5: repeated"),
        (
            lambda text: text.replace("dev0003", "dev0009"),
            "line 6: .* not in the order",
        ),
        (lambda text: text.replace("dev0003,nolm,", "dev0003,"), r"line 5: \d+ of \d+"),
        (lambda text: "", "not a gzip table"),
    ],
)
def test_faults_are_named_with_their_line(table, change, message):
    add(table, "a")
    text = gzip.decompress(table.read_bytes()).decode()
    assert change(text) != text
    table.write_bytes(gzip.compress(change(text).encode()))
    with pytest.raises(UserError, match=message) as caught:
        utterances.read(table)
    assert str(caught.value).startswith(str(table))


@pytest.mark.parametrize("size", [0, 5, 100, 2000, -1])
def test_a_cut_or_foreign_file_is_refused(table, size):
    add(table, "a")
    complete = table.read_bytes()
    table.write_bytes(complete[:size])
    with pytest.raises(UserError, match="not a gzip table"):
        utterances.read(table)
    table.write_bytes(complete[:50] + bytes(99) + complete[149:])
    with pytest.raises(UserError, match="not a gzip table"):
        utterances.read(table)


def test_without_a_file_there_are_no_rows(table):
    assert utterances.read(table) == {}
