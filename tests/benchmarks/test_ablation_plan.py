"""The command lines of an ablation: what is run, in which order, what is left."""

import dataclasses
import os
from pathlib import Path

import pytest
from ablation.matrix import Matrix, read_matrix
from ablation.plan import (
    Cell,
    cells,
    commands,
    decoding,
    missing,
    preparation,
    result_file,
)

from espnet_cif_hkd.errors import UserError

TEXT = """
corpus: tiny
title: tiny
recipe: egs2/tiny/asr_hkd
baseline: cif
seeds: [1, 2]
epochs: 3
options: --nj 1 --asr_args "--lr 1"
systems:
  cif: {label: CIF, options: --system cif}
  hkd: {label: HKD, options: --system hkd}
variants:
  few: {label: few, system: hkd, options: --asr_args "--batch_bins 9"}
  long: {label: long, system: cif, epochs: 9}
  small: {label: small, system: hkd, subset: 7}
decodes:
  nolm: {label: without, options: --use_lm false}
  lm: {label: with, options: --use_lm true}
"""


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Matrix:
    monkeypatch.delenv("ESPNET_ROOT", raising=False)
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return read_matrix(path)


def test_each_seed_compares_all_systems_before_the_next_begins(matrix: Matrix) -> None:
    names = [cell.name for cell in cells(matrix)]
    assert names == [
        "cif_seed1",
        "hkd_seed1",
        "cif_seed2",
        "hkd_seed2",
        "hkd_few_seed1",
        "cif_long_seed1",
        "hkd_small_seed1",
    ]


def test_what_has_scores_is_not_run_again(matrix: Matrix) -> None:
    done = result_file(matrix, Cell("hkd", 1))
    done.parent.mkdir(parents=True)
    done.touch()
    assert Cell("hkd", 1) not in missing(matrix, [])
    assert len(missing(matrix, [])) == 6
    assert missing(matrix, ["hkd_seed1", "hkd_seed2"]) == [Cell("hkd", 2)]
    with pytest.raises(UserError, match="no cell hkd_seed3; it has cif_seed1"):
        missing(matrix, ["hkd_seed3"])


def test_a_cell_is_trained_once_and_decoded_in_each_way(matrix: Matrix) -> None:
    train, nolm, lm = commands(matrix, Cell("hkd", 2))
    assert train[-4:] == ["--stage", "11", "--stop_stage", "11"]
    assert "--max_epoch 3 --seed 2" in train[train.index("--asr_args") + 1]
    for words, name, use in ((nolm, "nolm", "false"), (lm, "lm", "true")):
        assert words[words.index("--inference_tag") + 1] == name
        assert words[words.index("--use_lm") + 1] == use
        assert words[words.index("--asr_tag") + 1] == "hkd_seed2"
        assert words[-4:] == ["--stage", "12", "--stop_stage", "13"]


def test_a_way_of_decoding_may_need_a_command_for_each_model(matrix: Matrix) -> None:
    decode = dataclasses.replace(
        matrix.decodes["nolm"],
        before=("fit", "{exp}"),
        options=("--inference_args", "--asr_train_config {exp}/b.yaml"),
    )
    before, words = decoding(matrix, Cell("hkd", 2), decode)
    folder = "exp/ablation/tiny/asr_hkd_seed2"
    assert before == ["fit", folder]
    given = words[words.index("--inference_args") + 1]
    assert given == f"--asr_train_config {folder}/b.yaml"
    assert words[-4:] == ["--stage", "12", "--stop_stage", "13"]
    decodes = {**matrix.decodes, "nolm": decode}
    needy = dataclasses.replace(matrix, decodes=decodes)
    assert commands(needy, Cell("hkd", 2))[1:3] == [before, words]


def test_what_a_system_needs_is_made_before_its_training(matrix: Matrix) -> None:
    systems = dict(matrix.systems)
    systems["hkd"] = dataclasses.replace(systems["hkd"], before=("make", "it"))
    needy = dataclasses.replace(matrix, systems=systems)
    plain = commands(matrix, Cell("hkd", 1, "few"))
    assert commands(needy, Cell("hkd", 1, "few")) == [["make", "it"], *plain]
    assert commands(needy, Cell("cif", 1)) == commands(matrix, Cell("cif", 1))


def test_options_of_a_variant_join_those_of_all(matrix: Matrix) -> None:
    for words in commands(matrix, Cell("hkd", 1, "few")):
        assert words.count("--asr_args") == 1
        given = words[words.index("--asr_args") + 1]
        assert given.split()[:2] == ["--lr", "1"]
        assert "--batch_bins 9" in given
        assert "--seed 1" in given


def test_a_variant_may_be_trained_longer(matrix: Matrix) -> None:
    for words in commands(matrix, Cell("cif", 1, "long")):
        assert "--max_epoch 9 --seed 1" in words[words.index("--asr_args") + 1]
    assert matrix.variants["few"].epochs == matrix.epochs


def test_a_variant_may_be_trained_on_less(matrix: Matrix) -> None:
    few = preparation(matrix, [Cell("hkd", 1, "few")])
    assert few == preparation(matrix, [Cell("cif", 1)])
    made, *prepared = preparation(matrix, [Cell("hkd", 1, "small")])[-3:]
    assert made == ["bash", "local/data.sh", "--subset", "7"]
    assert [words[-4:] for words in prepared] == [
        ["--stage", "3", "--stop_stage", "4"],
        ["--stage", "10", "--stop_stage", "10"],
    ]
    for words in (*prepared, *commands(matrix, Cell("hkd", 1, "small"))):
        assert words[words.index("--train_set") + 1] == "train_7"
        # The statistics of the complete set are kept.
        assert "train_7" in words[words.index("--asr_stats_dir") + 1]
    for words in commands(matrix, Cell("hkd", 1, "few")):
        assert "--train_set" not in words


def test_a_variant_may_take_the_complete_set(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(
        TEXT.replace("epochs: 3", "epochs: 3\nsubset: 5").replace(": 7}", ": 0}")
    )
    matrix = read_matrix(path)
    assert matrix.subset_of("small") == 0
    train, *_ = commands(matrix, Cell("hkd", 1, "small"))
    assert "--train_set" not in train


def test_all_systems_may_be_trained_on_less(matrix: Matrix, tmp_path: Path) -> None:
    path = tmp_path / "less.yaml"
    path.write_text(TEXT.replace("epochs: 3", "epochs: 3\nsubset: 5"))
    less = read_matrix(path)
    subsets = {cell.name: less.subset_of(cell.variant) for cell in cells(less)}
    assert subsets.pop("hkd_small_seed1") == 7
    assert set(subsets.values()) == {5}
    prepared = preparation(less, [Cell("cif", 1)])
    # No statistics of the complete set: a system may need hours for them.
    assert [words for words in prepared if "10" in words] == prepared[-1:]
    assert "train_5" in prepared[-1]


def test_the_shared_statistics_may_have_more_than_the_baseline_needs(
    matrix: Matrix,
) -> None:
    sums = ("--feats_normalize", "global_mvn")
    more = dataclasses.replace(matrix, statistics=sums)
    for todo in ([Cell("cif", 1)], [Cell("hkd", 1, "small")]):
        for words, wanted in zip(
            preparation(matrix, todo), preparation(more, todo), strict=True
        ):
            added = sums if "10" in words else ()
            assert wanted == [*words[:-4], *added, *words[-4:]]
    assert commands(more, Cell("cif", 1)) == commands(matrix, Cell("cif", 1))


def test_the_language_model_is_made_for_who_decodes_with_it(
    matrix: Matrix,
) -> None:
    todo = [Cell("cif", 1)]
    stages = [words[words.index("--stage") + 1] for words in preparation(matrix, todo)]
    assert stages == ["1", "6", "10"]
    assert "true" in preparation(matrix, todo)[1]


def test_the_option_that_asr_sh_lacks_is_left_out_with_a_checkout(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--reuse" in commands(matrix, Cell("cif", 1))[0]
    monkeypatch.setitem(os.environ, "ESPNET_ROOT", "/espnet")
    assert "--reuse" not in commands(matrix, Cell("cif", 1))[0]
