"""The matrix of students: what each cell learns from before its training."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from ablation.matrix import read_matrix
from ablation.plan import Cell, cells, commands, preparation
from recorded_recipe import RecordedRecipe

from espnet_cif_hkd.distill.frame_options import TeacherOptions, teacher_options
from espnet_cif_hkd.recipe.options import Options
from espnet_cif_hkd.recipe.stages.train import configured_args

TOP = Path(__file__).parents[2]
MATRIX = read_matrix(TOP / "benchmarks/ablation/fotaq_students.yaml")
CONF = TOP / MATRIX.recipe / "conf"
TEACHERS: dict[str, set[str]] = {
    "scratch": set(),
    "random": {"base"},
    "base": {"base"},
    "tiny": {"tiny"},
    "both": {"base", "tiny"},
    "moonshine": {"moonshine"},
    "kinds": {"moonshine", "tiny"},
    "unlabelled": {"base", "tiny"},
}


def given(cell: Cell) -> dict[str, str]:
    words = next(c for c in commands(MATRIX, cell) if "11" in c)
    return dict(itertools.pairwise(words))


def teachers(cell: Cell) -> dict[str, TeacherOptions]:
    options = given(cell)
    if options.get("--pretrain") != "true":
        return {}
    name = "pretrain_streaming" if "streaming" in options["--system"] else "pretrain"
    training = Options(
        asr_config=str(CONF / f"{name}.yaml"), asr_args=options["--pretrain_args"]
    )
    conf = configured_args(training).model_conf["criteria"]["speech"]
    return {one.name: one for one in teacher_options(conf["teachers"])}


@pytest.mark.parametrize("cell", cells(MATRIX), ids=lambda cell: cell.name)
def test_the_teachers_of_each_student(cell: Cell) -> None:
    assert set(TEACHERS) == set(MATRIX.systems)
    found = teachers(cell)
    assert set(found) == TEACHERS[cell.system]
    is_random = {one.conf.get("teacher_type") == "random" for one in found.values()}
    assert is_random <= {cell.system == "random"}
    assert ("--unlabelled" in given(cell)) == (cell.system == "unlabelled")
    assert given(cell)["--train_set"] == "train_2000"


def test_each_seed_has_its_pre_training() -> None:
    tags: Counter[str] = Counter()
    for cell in cells(MATRIX):
        options = given(cell)
        if "--pretrain" in options:
            seed = 2 if cell.variant == "longer" else cell.seed
            assert ("28" in options["--pretrain_args"]) == (cell.variant == "first28")
            assert f"--seed {seed}" in options["--pretrain_args"]
            assert options["--pretrain_tag"].endswith(f"_seed{seed}")
            tags[options["--pretrain_tag"]] += 1
    # CIF and a longer training start from the encoder of a transducer's pre-training.
    for shared in ("both_seed1", "both_seed2", "unlabelled_seed1"):
        assert tags.pop(f"pretrain_{shared}") == 2
    assert set(tags.values()) == {1}


def test_streaming_students_have_a_pre_training_that_streams(tmp_path: Path) -> None:
    recipe = RecordedRecipe("fotaq", tmp_path / "recipe")
    found = {}
    for name in ("streaming", "streaming-both"):
        system = MATRIX.variants[name].system
        words = next(c for c in commands(MATRIX, Cell(system, 1, name)) if "11" in c)
        done = recipe.run(*words[1:])
        assert done.returncode == 0, done.stderr
        found[name] = recipe.trainings()
    (scratch,), (first, second) = found["streaming"], found["streaming-both"]
    assert first.asr_config == "conf/pretrain_streaming.yaml"
    for one in (scratch, second):
        assert one.asr_config == "conf/train_asr_transducer_streaming.yaml"
    # All read the same statistics.
    assert {one.feats_normalize for one in (scratch, first, second)} == {"global_mvn"}
    assert len({one.asr_stats_dir for one in (scratch, first, second)}) == 1
    assert "asr_pretrain_streaming_seed1/" in second.pretrained_model
    # The preparation makes them, once for all cells.
    prepared = preparation(MATRIX, [Cell("scratch", 1, "streaming")])
    done = recipe.run(*prepared[-1][1:])
    assert done.returncode == 0, done.stderr
    (made,) = recipe.trainings()
    assert made.feats_normalize == "global_mvn"
    assert made.asr_stats_dir == scratch.asr_stats_dir


def test_a_store_belongs_to_one_teacher() -> None:
    stores = {}
    for cell in cells(MATRIX):
        for one in teachers(cell).values():
            about = one.conf["teacher"], one.conf.get("teacher_type")
            assert stores.setdefault(one.store, about) == about
    assert len(stores) == 4
