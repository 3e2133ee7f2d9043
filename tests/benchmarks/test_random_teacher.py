"""The control of the ablation: a teacher with a random vector for each unit."""

from pathlib import Path

import pytest
import torch
from random_teacher import make
from tiny_bert import CHINESE, HIDDEN, build_tiny_bert

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

TOKENS = ["<blank>", "<unk>", *CHINESE, "<sos/eos>"]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Vectors of all characters, then of all in reverse order; ``(2 V, C)``."""
    folder = tmp_path_factory.mktemp("teachers")
    make(build_tiny_bert(folder / "tiny"), folder / "random", variance=9.0, seed=3)
    config = TeacherConfig(str(folder / "random"), HIDDEN, layer=0)
    teacher = OnlineTeacher(config, TOKENS, "char")
    ids = list(range(2, 2 + len(CHINESE)))
    return teacher.features([ids + ids[::-1]], torch.device("cpu"))[:-1]


def test_a_character_has_one_vector_at_every_position(vectors: torch.Tensor) -> None:
    assert torch.equal(vectors[: len(CHINESE)], vectors[len(CHINESE) :].flip(0))


def test_characters_differ_and_have_the_given_length(vectors: torch.Tensor) -> None:
    lengths = vectors.square().sum(1)
    assert lengths.tolist() == pytest.approx([9.0] * len(vectors), rel=1e-3)
    cosines = vectors[: len(CHINESE)] @ vectors[: len(CHINESE)].T / 9
    assert (cosines - torch.eye(len(CHINESE))).max() < 0.9


def test_an_existing_teacher_is_kept_if_it_is_the_same(tmp_path: Path) -> None:
    tiny = build_tiny_bert(tmp_path / "tiny")
    made = tmp_path / "deep/random"
    make(tiny, made, variance=9.0, seed=1)
    before = (made / "model.safetensors").stat().st_mtime_ns
    make(tiny, made, variance=9.0, seed=1)
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    assert [file.name for file in made.parent.iterdir()] == ["random"]
    with pytest.raises(UserError, match=r"random exists but is not .*'seed': 2"):
        make(tiny, made, variance=9.0, seed=2)


def test_a_seed_makes_the_same_teacher_again(tmp_path: Path) -> None:
    tiny = build_tiny_bert(tmp_path / "tiny")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(tiny, tmp_path / name, variance=9.0, seed=seed)
    a, b, c = ((tmp_path / n / "model.safetensors").read_bytes() for n in "abc")
    assert a == b
    assert a != c
