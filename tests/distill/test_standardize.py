"""Teacher vectors with mean 0 and variance 1, from fixed statistics."""

import pytest
import torch
from hkd_batch import CHARS, CPU, STUDENT, TEXTS, batch, encode
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.distill import CheckContext, HKDCriterion
from espnet_cif_hkd.distill.check import fill_teacher_store
from espnet_cif_hkd.distill.criterion import Sentences
from espnet_cif_hkd.distill.standardize import Standardizer
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.random import RandomTeacher
from espnet_cif_hkd.teachers.store import reader

TRAINING = [*TEXTS, "PLAYING", "A CAT", "IT IS THE", "CATS"]


def store_of(bert, folder, texts=TRAINING):
    conf = {"teacher": bert, "teacher_dim": HIDDEN}
    sentences = Sentences(
        lambda: (encode(text) for text in texts), CHARS, "char", CPU, shard_bytes=2000
    )
    fill_teacher_store(conf, str(folder), sentences)
    return {**conf, "teacher_store": str(folder)}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def conf(bert, tmp_path_factory):
    return store_of(bert, tmp_path_factory.mktemp("store"))


def hkd(conf, **options):
    torch.manual_seed(1)
    return HKDCriterion(STUDENT, **{**conf, "normalize_teacher": True, **options})


def vectors(criterion, texts):
    return criterion._teacher.features([encode(text) for text in texts], CPU)


def test_all_stored_vectors_have_mean_0_and_variance_1(conf):
    criterion = hkd(conf)
    stored = vectors(criterion, TRAINING)
    found = criterion.standardizer(stored, criterion._teacher)
    assert stored.mean(0).abs().max() > 0.01
    torch.testing.assert_close(found.mean(0), torch.zeros(HIDDEN), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.var(0, correction=0), torch.ones(HIDDEN))


def test_both_levels_learn_the_standardised_vectors(conf):
    criterion = hkd(conf, acoustic={"num_negatives": "all"}).eval()
    output = criterion(batch(TEXTS))
    plain = hkd(conf, acoustic={"num_negatives": "all"}, normalize_teacher=False)
    plain.eval()
    features = plain._teacher.features

    class Standardised:
        def features(self, sequences, device):
            every = features([encode(text) for text in TRAINING], device)
            mean, std = every.mean(0), every.std(0, correction=0)
            return (features(sequences, device) - mean) / std

    other = plain(batch(TEXTS))
    plain._teacher = Standardised()
    expected = plain(batch(TEXTS))
    for name, value in expected.losses.items():
        torch.testing.assert_close(output.losses[name], value, rtol=1e-4, atol=1e-4)
        assert (other.losses[name] - value).abs() > 1e-3 * value


def test_statistics_of_a_large_store_are_those_of_a_sample(conf, monkeypatch):
    monkeypatch.setattr(reader, "SAMPLE", 20)
    first, second = (torch.cat(list(hkd(conf)._teacher.sample())) for _ in range(2))
    assert torch.equal(first, second)
    assert 20 <= len(first) < len(vectors(hkd(conf), TRAINING))


def test_a_resumed_training_keeps_its_statistics(bert, tmp_path):
    """Also when the store has grown, or the checkpoint is older than the option."""
    conf = store_of(bert, tmp_path / "store", TRAINING[:3])
    first = hkd(conf)
    first(batch(TRAINING[:3]))
    store_of(bert, tmp_path / "store")
    grown, resumed = hkd(conf), hkd(conf)
    resumed.load_state_dict(first.state_dict())
    for criterion in (grown, resumed):
        criterion(batch(TRAINING[:3]))
    assert torch.equal(resumed.standardizer.mean, first.standardizer.mean)
    assert not torch.equal(grown.standardizer.mean, first.standardizer.mean)
    old = hkd(conf, normalize_teacher=False)
    assert not any("standardizer" in name for name in old.state_dict())
    late = hkd(conf)
    late.load_state_dict(old.state_dict())
    late(batch(TRAINING))
    assert torch.equal(late.standardizer.mean, grown.standardizer.mean)
    never = hkd(conf)  # saved before its first step
    late.load_state_dict(never.state_dict())
    late(batch(TRAINING))
    assert torch.equal(late.standardizer.mean, grown.standardizer.mean)


def test_statistics_of_another_teacher_are_not_kept(bert, conf, tmp_path):
    """Such as from --init_param; a checkpoint of an earlier version is trusted."""
    other = store_of(build_tiny_bert(tmp_path / "bert", seed=7), tmp_path / "store")
    first, fresh = hkd(conf), hkd(other)
    for criterion in (first, fresh):
        criterion(batch(TRAINING))
    assert not torch.equal(first.standardizer.mean, fresh.standardizer.mean)
    moved, late = hkd(other), hkd(other)
    moved.load_state_dict(first.state_dict())
    early = first.state_dict()
    del early["standardizer.teacher_digest"]
    late.load_state_dict(early)
    for criterion in (moved, late):
        criterion(batch(TRAINING))
    for name in ("mean", "deviation"):
        found = [getattr(c.standardizer, name) for c in (moved, fresh, late, first)]
        assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])


def test_a_constant_dimension_is_not_divided():
    teacher = RandomTeacher(3, CHARS)
    table = teacher.open()
    table[:, 1] = 7.0
    standardizer = Standardizer(3)
    found = standardizer(table, teacher)
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, 1], torch.zeros(len(table)))
    torch.testing.assert_close(
        found[:, ::2].var(0, correction=0), torch.ones(2), rtol=1e-4, atol=1e-4
    )


def test_the_random_teacher_needs_no_store():
    conf = {"teacher_type": "random", "teacher_dim": 5, "normalize_teacher": True}
    assert HKDCriterion.check(conf, CheckContext("cif")) == []
    HKDCriterion(STUDENT, **conf)(batch(TEXTS))


def test_the_check_before_a_training_asks_for_a_store(bert):
    conf = {"teacher": bert, "teacher_dim": HIDDEN, "normalize_teacher": True}
    with pytest.raises(UserError, match="normalize_teacher needs teacher_store"):
        HKDCriterion.check(conf, CheckContext("cif"))
    assert HKDCriterion.check({**conf, "teacher_store": "x"}, CheckContext("cif")) == []
