"""Registered teachers, the random one, and stores of all kinds of targets."""

import hashlib
import math

import numpy as np
import pytest
import torch
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.distill import HKDCriterion
from espnet_cif_hkd.distill.check import check_teacher
from espnet_cif_hkd.distill.taps import Student, Taps
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import (
    AbsTeacher,
    Targets,
    TextTeacher,
    sequence_key,
)
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.random import RandomTeacher
from espnet_cif_hkd.teachers.registry import build_text_teacher, teacher_choices
from espnet_cif_hkd.teachers.store.reader import StoredTeacher
from espnet_cif_hkd.teachers.store.writer import dump_store
from espnet_cif_hkd.teachers.text.online import OnlineTeacher

CHARS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJ", "<sos/eos>"]
SENTENCES = [[3, 4, 3], [5], [], [4, 3]]
CPU = torch.device("cpu")
STUDENT = Student("cif", tuple(CHARS), {"fired": 6, "states:output": 7})
RANDOM = {"teacher_type": "random", "teacher_dim": 8}


class Frames(AbsTeacher):
    """As a speech teacher: items are samples, rows are frames of four samples."""

    def __init__(self, coding="float16"):
        self.payload = Payload("frames", 3, coding)

    def open(self):
        return self

    def key(self, item):
        return hashlib.blake2b(item.tobytes(), digest_size=16).digest()

    def n_rows(self, item):
        return len(item) // 4

    def targets(self, items, device):
        rows = [torch.from_numpy(i[: len(i) // 4 * 4].reshape(-1, 4)) for i in items]
        vectors = torch.cat([r[:, :3] for r in rows]).to(device)
        return Targets([len(r) for r in rows], {"vectors": vectors})

    def describe(self):
        return {"type": "frames", "name": "frames", "stride": 4}

    def fingerprint(self, cache=None):
        return "f"


class Labels(AbsTeacher):
    """As a language model: items are token ids, rows the K most probable labels."""

    payload = Payload("labels", 2)

    def open(self):
        return self

    key = TextTeacher.key

    def targets(self, items, device):
        ids = torch.tensor([[n, 70_000 + n] for item in items for n in (*item, 0)])
        shares = torch.tensor([0.75, 0.2]).expand(len(ids), 2)
        tensors = {"ids": ids.to(device), "probabilities": shares.to(device)}
        return Targets([len(item) + 1 for item in items], tensors)

    def describe(self):
        return {"type": "labels", "name": "labels"}

    def fingerprint(self, cache=None):
        return "l"


def recordings():
    generator = np.random.default_rng(0)
    return [generator.standard_normal(n).astype(np.float32) for n in (9, 40, 4, 17)]


@pytest.mark.parametrize("coding", ["float16", "int8"])
def test_frames_are_stored_and_read(tmp_path, coding):
    """Of items whose number of rows only the teacher knows."""
    teacher, items = Frames(coding), recordings()
    report = dump_store(tmp_path, lambda: items, teacher, CPU, shard_bytes=40)
    assert (report.n_items, report.n_rows) == (4, 2 + 10 + 1 + 4)
    got = StoredTeacher(str(tmp_path), teacher).targets(items, CPU)
    expected = teacher.targets(items, CPU)
    assert got.sizes == expected.sizes == [2, 10, 1, 4]
    vectors = expected.tensors["vectors"]
    error = (got.tensors["vectors"] - vectors).abs()
    if coding == "int8":
        assert (error <= vectors.abs().amax(1, keepdim=True) / 253).all()
    else:
        assert torch.equal(got.tensors["vectors"], vectors.half().float())
    with pytest.raises(UserError, match="has no targets for"):
        StoredTeacher(str(tmp_path), teacher).targets([items[0][:8]], CPU)
    other = Frames("int8" if coding == "float16" else "float16")
    with pytest.raises(UserError, match="made for targets"):
        StoredTeacher(str(tmp_path), other).open()


def test_a_row_of_zeros_is_coded_as_zeros():
    payload = Payload("frames", 3, "int8")
    arrays = payload.encode({"vectors": torch.zeros(2, 3)})
    decoded = payload.decode({k: torch.from_numpy(a) for k, a in arrays.items()})
    assert torch.equal(decoded["vectors"], torch.zeros(2, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("coding", ["float16", "int8"])
def test_frames_that_are_not_finite_are_refused(coding, value):
    with pytest.raises(UserError, match="do not fit"):
        Payload("frames", 2, coding).encode({"vectors": torch.tensor([[1.0, value]])})


def test_labels_are_stored_and_read(tmp_path):
    dump_store(tmp_path, lambda: SENTENCES, Labels(), CPU, shard_bytes=50)
    got = StoredTeacher(str(tmp_path), Labels()).targets(SENTENCES, CPU)
    expected = Labels().targets(SENTENCES, CPU)
    assert got.sizes == [4, 2, 1, 3]
    assert torch.equal(got.tensors["ids"], expected.tensors["ids"])
    shares = expected.tensors["probabilities"].half().float()
    assert torch.equal(got.tensors["probabilities"], shares)


@pytest.mark.parametrize(
    "arguments",
    [("words", 3), ("tokens", 0), ("tokens", 3, "int8"), ("labels", 3, "int8")],
)
def test_payloads_that_cannot_be_are_refused(arguments):
    with pytest.raises(UserError, match="cannot be stored"):
        Payload(*arguments)


def test_random_vectors_belong_to_tokens():
    teacher = build_text_teacher(RANDOM, CHARS)
    vectors = teacher.features(SENTENCES, CPU)
    assert vectors.shape == (10, 8) and vectors.dtype == torch.float32
    a, b, a_again, eos = vectors[:4]
    assert torch.equal(a, a_again) and torch.equal(eos, vectors[5])
    assert not torch.equal(a, b) and not torch.equal(a, eos)
    torch.testing.assert_close(vectors.square().sum(1), torch.full((10,), 8.0))
    again = build_text_teacher(RANDOM, CHARS).features(SENTENCES, CPU)
    assert torch.equal(vectors, again)
    conf = {**RANDOM, "teacher_conf": {"seed": 2, "variance": 150}}
    other = build_text_teacher(conf, CHARS).features(SENTENCES, CPU)
    torch.testing.assert_close(other.square().sum(1), torch.full((10,), 150.0))
    cosine = torch.nn.functional.cosine_similarity(vectors, other)
    assert (cosine < 0.99).all()


def test_the_random_teacher_through_a_store_is_the_same(tmp_path):
    conf = {**RANDOM, "teacher_store": str(tmp_path)}
    online = build_text_teacher(conf, CHARS, stored=False)
    assert isinstance(online, RandomTeacher)
    assert check_teacher(conf, CHARS, "char").store == "to be dumped"
    dump_store(tmp_path, lambda: SENTENCES, online, CPU)
    assert check_teacher(conf, CHARS, "char").store == "present"
    stored = build_text_teacher(conf, CHARS)
    assert isinstance(stored, StoredTeacher)
    expected = online.features(SENTENCES, CPU)
    assert torch.equal(stored.features(SENTENCES, CPU), expected.half().float())
    changed = {**conf, "teacher_conf": {"seed": 2}}
    with pytest.raises(UserError, match=r"made for seed 1, .* asks for 2"):
        build_text_teacher(changed, CHARS).open()


def test_the_criterion_takes_the_random_teacher_without_transformers(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    assert check_teacher(RANDOM, CHARS, "char").teacher == "random"
    criterion = HKDCriterion(STUDENT, **RANDOM)
    lengths, none = torch.tensor([4, 2]), torch.zeros(2)
    output = criterion(
        Taps(
            hs_pad=torch.zeros(2, 1, 6),
            hlens=torch.ones(2, dtype=torch.long),
            ys_pad=torch.tensor([[3, 4, 5], [6, -1, -1]]),
            ys_pad_lens=lengths - 1,
            fired=CIFOutput(torch.randn(2, 4, 6), lengths, *4 * (none,)),
            states={"output": torch.randn(2, 4, 7)},
        )
    )
    assert set(output.losses) == {"loss_acd", "loss_lrd"}
    assert not any("teacher" in name for name in criterion.state_dict())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"teacher_dim": None}, "teacher_dim is None"),
        ({"teacher_dim": True}, "teacher_dim is True"),
        ({"teacher_conf": {"sed": 1}}, "no option 'sed'; there are seed, variance"),
        ({"teacher_conf": {"seed": -1}}, "seed is -1"),
        ({"teacher_conf": {"seed": 1.5}}, "seed is 1.5"),
        ({"teacher_conf": {"variance": 0}}, "variance is 0"),
        ({"teacher_conf": {"variance": "much"}}, "variance is 'much'"),
        ({"teacher_type": "bert"}, "teacher_type is 'bert'; use one of plm, random"),
        ({"teacher_type": "plm", "teacher_conf": {"seed": 1}, "teacher": "x"}, "plm"),
    ],
)
def test_options_that_are_wrong_are_named(change, match):
    with pytest.raises(UserError, match=match):
        check_teacher({**RANDOM, **change}, CHARS, "char")


def test_a_registered_teacher_needs_no_fork(monkeypatch, tmp_path):
    class Mine(RandomTeacher):
        pass

    monkeypatch.setitem(teacher_choices.classes, "Mine", Mine)
    conf = {**RANDOM, "teacher_type": "Mine", "teacher_store": str(tmp_path)}
    assert check_teacher(conf, CHARS, "char").store == "to be dumped"
    teacher = build_text_teacher(conf, CHARS, stored=False)
    assert type(teacher) is Mine
    dump_store(tmp_path, lambda: SENTENCES, teacher, CPU)
    assert HKDCriterion(STUDENT, **conf)._teacher.features(SENTENCES, CPU).any()
    monkeypatch.setitem(teacher_choices.classes, "wrong", dict)
    with pytest.raises(UserError, match="is no subclass of"):
        build_text_teacher({**conf, "teacher_type": "wrong"}, CHARS)


def test_plm_is_the_default(tmp_path):
    name = build_tiny_bert(tmp_path)
    conf = {"teacher": name, "teacher_dim": HIDDEN}
    assert type(build_text_teacher(conf, CHARS)) is OnlineTeacher
    assert teacher_choices.choices()[:2] == ("plm", "random")


def test_keys_depend_on_order_and_length():
    keys = {
        sequence_key(s) for s in ([], [0], [0, 0], [1, 2], [2, 1], [258], [1, 2, 0])
    }
    assert len(keys) == 7 and {len(k) for k in keys} == {16}
