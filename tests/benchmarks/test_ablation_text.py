"""The matrix of text without speech: what each cell trains."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from ablation import run
from ablation.matrix import Matrix, read_matrix
from ablation.plan import Cell, cells, commands, preparation

from espnet_cif_hkd.distill import CheckContext
from espnet_cif_hkd.distill.choices import Configured, configured
from espnet_cif_hkd.recipe.options import Options
from espnet_cif_hkd.recipe.stages.train import configured_args

TOP = Path(__file__).parents[2]
MATRIX = read_matrix(TOP / "benchmarks/ablation/fotaq_whisper_text.yaml")
CONF = TOP / MATRIX.recipe / "conf"
DEFAULT = {"mask": 0.3, "noise": 0.5, "source": "embedding", "start": 0}
EXPECTED: dict[str, dict[str, object]] = {
    "text": {},
    "masked": {"mask": 1.0},
    "teacher": {"source": "teacher"},
    "half-masked": {"mask": 0.5},
    "unmasked": {"mask": 0.0},
    "noisy": {"noise": 1.0},
    "late": {"start": 500},
    "window0-text": {},
    "hkd-teacher": {"source": "teacher"},
    "brown": {},
}


def options(matrix: Matrix, cell: Cell) -> dict[str, str]:
    words = next(c for c in commands(matrix, cell) if "11" in c)
    return dict(itertools.pairwise(words))


def criteria(given: dict[str, str]) -> dict[str, Configured]:
    options = Options(
        asr_config=str(CONF / f"train_asr_cif_{given['--system']}.yaml"),
        asr_args=given["--asr_args"],
    )
    args = configured_args(options)
    without = "--decoder_conf frame_window=0" in given["--asr_args"]
    assert without == ("window0" in given["--asr_tag"])
    return {one.name: one for one in configured(args.model_conf)}


@pytest.mark.parametrize("cell", cells(MATRIX), ids=lambda cell: str(cell.name))
def test_every_cell_trains_what_its_label_says(cell: Cell) -> None:
    given = options(MATRIX, cell)
    found = criteria(given)
    name = cell.variant or cell.system
    assert ("text" in found) == (name in EXPECTED)
    assert ("hkd" in found) == name.startswith("hkd")
    for one in found.values():
        if one.kind == "text_only":
            got = {key: one.conf.get(key, DEFAULT[key]) for key in DEFAULT}
            assert got == {**DEFAULT, **EXPECTED[name]}
            place = "data/brown/text" if name == "brown" else "data/train/text"
            assert one.conf["text"] == place
            # The store of the vectors may be that of HKD: the same teacher.
            if "hkd" in found:
                for key in ("teacher", "teacher_dim", "layer", "teacher_store"):
                    assert one.conf[key] == found["hkd"].conf[key]
        if not str(one.conf.get("teacher")).startswith("pkg:"):
            one.cls.check(one.conf, CheckContext("cif"))
    assert given["--train_set"] == "train_2000"


def test_the_language_model_has_the_same_text() -> None:
    """It is trained in the preparation, on the complete training set."""
    todo = list(cells(MATRIX))
    made = [" ".join(c) for c in preparation(MATRIX, todo) if "--use_lm" in c]
    assert made and not any("train_2000" in words for words in made)


def test_unseen_words_are_those_of_the_transcripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def collect(*arguments: object) -> tuple[dict[str, object], list[object]]:
        asked.append(arguments[-1])
        return {}, []

    monkeypatch.setattr(run, "collect", collect)
    monkeypatch.setattr(run, "write_cell", lambda *_: None)
    for matrix in (MATRIX, read_matrix(TOP / "benchmarks/ablation/fotaq_whisper.yaml")):
        run.keep(replace(matrix, path=tmp_path / "own.yaml"), Cell("cif", 1))
    assert asked == ["train_2000", "train"]
