"""The matrices of soft labels: what each cell trains."""

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest
from ablation.matrix import Matrix, read_matrix
from ablation.plan import Cell, cells, commands

from espnet_cif_hkd.distill.choices import Configured, configured
from espnet_cif_hkd.distill.level_options import Level, level_options
from espnet_cif_hkd.recipe.options import Options
from espnet_cif_hkd.recipe.stages.train import configured_args

TOP = Path(__file__).parents[2]
MATRICES = ("fotaq_soft", "fotaq_whisper_soft", "hsk_soft")


@pytest.fixture(params=MATRICES)
def matrix(request: pytest.FixtureRequest) -> Matrix:
    return read_matrix(TOP / "benchmarks/ablation" / f"{request.param}.yaml")


def criteria(matrix: Matrix, cell: Cell) -> dict[str, Configured]:
    """The criteria of a cell's training."""
    words = next(c for c in commands(matrix, cell) if "11" in c)
    given = dict(itertools.pairwise(words))
    conf = TOP / matrix.recipe / "conf"
    for name in (
        f"train_asr_cif_{given['--system']}",
        f"train_asr_{given['--system']}",
    ):
        if (conf / f"{name}.yaml").is_file():
            config = str(conf / f"{name}.yaml")
            break
    options = Options(asr_config=config, asr_args=given["--asr_args"])
    return {one.name: one for one in configured(configured_args(options).model_conf)}


def levels(found: dict[str, Configured]) -> dict[str, Level]:
    """The levels that are used."""
    if "lm" not in found:
        return {}
    given = level_options(found["lm"].conf["levels"])
    return {one.name: one for one in given if one.is_used}


def summary(used: dict[str, Level]) -> dict[str, Any]:
    return {
        name: one.options.interpolation if one.is_output else one.options.soft
        for name, one in used.items()
    }


EXPECTED: dict[str, dict[str, float]] = {
    "cif": {},
    "hard": {"phone": 0.0, "char": 0.0},
    "silence": {"phone": 0.0, "char": 0.0},
    "interpolation": {"output": 0.3},
    "output-gemma": {"output": 0.3},
    "output-uniform": {"output": 0.3},
    "gemma": {"phone": 0.0, "char": 0.5},
    "phone": {"phone": 0.5},
    "phone-hard": {"phone": 0.0},
    "soft": {"phone": 0.5, "char": 0.5},
    "mixed": {"phone": 0.0, "char": 0.5},
    "both": {"phone": 0.5, "char": 0.5},
    "both-hard": {"phone": 0.0, "char": 0.0},
    "uniform": {"phone": 0.5, "char": 0.5},
    "unigram": {"phone": 0.5, "char": 0.5},
    "three": {"phone": 0.5, "bpe": 0.5, "output": 0.3},
    "three-hard": {"phone": 0.0, "bpe": 0.0},
    "ctc": {"phone": 0.5},
    "ctc-hard": {"phone": 0.0},
    "aligned": {"phone": 0.5},
    "aligned-hard": {"phone": 0.0},
    "softer": {"phone": 1.0},
    "one-pass": {},
    "states": {"state": 0.5},
    "states-hard": {"state": 0.0},
}
# Where the labels are not those of the recipe's own language models.
LM_TYPES = {
    "uniform": "uniform",
    "output-uniform": "uniform",
    "unigram": "unigram",
    "gemma": "hf_characters",
    "output-gemma": "hf_characters",
}


def test_every_cell_trains_what_its_label_says(matrix: Matrix) -> None:
    for cell in cells(matrix):
        found = criteria(matrix, cell)
        used = levels(found)
        name = cell.variant or cell.system
        assert summary(used) == EXPECTED[name], name
        assert ("hkd" in found) == name.startswith("both")
        kinds = {one.lm.get("lm_type") for one in used.values() if one.is_soft}
        assert kinds <= {LM_TYPES.get(name)}
        maps = {"ctc": "ctc", "aligned": "alignment"}
        if "phone" in used:
            wanted = maps.get(name.removesuffix("-hard"), "cif")
            assert used["phone"].options.map == wanted


def test_a_language_model_is_compared_with_the_same_heads_and_hard_labels(
    matrix: Matrix,
) -> None:
    """Head, unit and map are the same; only ``soft`` and interpolation differ."""
    pairs = list(matrix.controls)
    pairs += [(name, one.against) for name, one in matrix.variants.items()]
    known = {cell.variant or cell.system: cell for cell in cells(matrix)}

    def heads(name: str) -> dict[str, Any]:
        used = levels(criteria(matrix, known[name]))
        return {
            key: (one.unit, one.options.map, one.options.weight)
            for key, one in used.items()
            if not one.is_output
        }

    compared = {name for name, other in pairs if other.endswith("hard")}
    for name, other in pairs:
        if other.endswith("hard") and not name.endswith("-hard"):
            assert heads(name) == heads(other), (name, other)
            assert not any(summary(levels(criteria(matrix, known[other]))).values())
    assert {"phone", "soft", "both", "ctc"} <= compared


def test_hkd_is_that_of_its_own_configuration(matrix: Matrix) -> None:
    both = criteria(matrix, Cell("both", 1))["hkd"].conf
    whisper = "whisper_" if "whisper" in matrix.corpus else ""
    path = TOP / matrix.recipe / f"conf/train_asr_cif_{whisper}hkd.yaml"
    (own,) = configured(configured_args(Options(asr_config=str(path))).model_conf)
    stores = [conf.pop("teacher_store", None) for conf in (both, own.conf)]
    assert both == own.conf and stores[0]


@pytest.mark.slow
def test_labels_of_different_models_have_different_stores(matrix: Matrix) -> None:
    models: dict[str, Any] = {}
    for cell in cells(matrix):
        for one in levels(criteria(matrix, cell)).values():
            if one.is_soft:
                known = models.setdefault(str(one.store), (one.unit, one.lm))
                assert known == (one.unit, one.lm), shlex.join([cell.name, one.name])


def test_the_one_pass_decoder_is_that_of_its_own_configuration() -> None:
    matrix = read_matrix(TOP / "benchmarks/ablation/hsk_soft.yaml")
    cell = Cell("cif", 1, "one-pass")
    words = next(c for c in commands(matrix, cell) if "11" in c)
    given = dict(itertools.pairwise(words))
    conf = TOP / matrix.recipe / "conf"
    options = Options(
        asr_config=str(conf / "train_asr_cif.yaml"), asr_args=given["--asr_args"]
    )
    trained = configured_args(options).model_conf
    sherpa = Options(asr_config=str(conf / "train_asr_cif_sherpa.yaml"), asr_args="")
    assert trained == configured_args(sherpa).model_conf
