"""Perplexity and accuracy of labels, and the refusal of an LM that knows too little."""

import math

import numpy as np
import pytest
import torch
from tiny_lm import CYCLE, TOKENS, build_tiny_lm, cycles, encode, train_tiny_lm

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import Targets
from espnet_cif_hkd.teachers.lm.labels import LMTeacher, label_ids
from espnet_cif_hkd.teachers.lm.quality import (
    Quality,
    Sample,
    check_stored,
    measure,
    refuse_bad,
)
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

CPU = torch.device("cpu")
ITEMS = [encode("abca?b"), encode("g"), encode("a"), encode("?")]


@pytest.fixture(scope="module")
def random_lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("random"), "seq_rnn")


@pytest.fixture(scope="module")
def trained_lm(tmp_path_factory):
    return train_tiny_lm(tmp_path_factory.mktemp("trained"), cycles(7))


def teacher(lm, **options):
    return build_lm_teacher({"lm": lm, **options}, TOKENS)


def test_measures_equal_loops(random_lm):
    made = teacher(random_lm, top_k=3)
    sample = Sample(ITEMS, 1000, len(TOKENS))
    assert list(map(list, sample.items)) == ITEMS
    quality, targets = measure(made, sample, CPU)
    expected, logs = made.evaluate(ITEMS, CPU)
    assert torch.equal(targets.tensors["ids"], expected.tensors["ids"])
    rows = expected.tensors["ids"].tolist()
    units = [unit for item in ITEMS for unit in item]
    labels = set(label_ids(TOKENS).tolist())
    true = [n for n, unit in enumerate(units) if unit in labels]
    counts = {unit: units.count(unit) for unit in labels}
    total = sum(counts.values())
    assert quality.n_units == len(true) == 7 and quality.k == 3
    mean = sum(float(logs[n]) for n in true) / 7
    assert quality.perplexity == pytest.approx(math.exp(-mean))
    # Each unit by the counts of the others, plus one.
    others = [counts[units[n]] / (total - 1 + len(labels)) for n in true]
    assert quality.unigram == pytest.approx(math.prod(others) ** (-1 / 7))
    assert quality.top_1 == pytest.approx(sum(rows[n][0] == units[n] for n in true) / 7)
    assert quality.top_k == pytest.approx(sum(units[n] in rows[n] for n in true) / 7)
    # Neighbours in the same sentence, both labels: ab, bc, ca.
    pairs = [(0, 1), (1, 2), (2, 3)]
    before = sum(units[j] in rows[i] for i, j in pairs) / 3
    after = sum(units[i] in rows[j] for i, j in pairs) / 3
    assert (quality.before, quality.after) == pytest.approx((before, after))
    assert f"top-3 {quality.top_k:.1%} of 7 units" in str(quality)
    # Each unit by the counts of another text, plus one.
    other = Sample([encode("aab?")], 9, len(TOKENS)).counts
    held_out, _ = measure(made, sample, CPU, other)
    chances = [
        ({"a": 2, "b": 1}.get(TOKENS[units[n]], 0) + 1) / (3 + len(labels))
        for n in true
    ]
    assert held_out.unigram == pytest.approx(math.prod(chances) ** (-1 / 7))
    assert held_out.perplexity == quality.perplexity


@pytest.mark.parametrize("items", [[], [[]], [encode("??")]])
def test_a_text_without_labels_has_no_quality(random_lm, items):
    quality, targets = measure(teacher(random_lm), Sample(items, 9, len(TOKENS)), CPU)
    assert quality is None and sum(targets.sizes) == sum(map(len, items))


def test_a_trained_lm_is_accepted_and_a_random_one_refused(random_lm, trained_lm):
    sample = Sample(cycles(), 1000, len(TOKENS))
    quality, _ = measure(teacher(trained_lm, top_k=2), sample, CPU)
    assert quality.perplexity < 2 < 6 < quality.unigram < 9
    assert quality.top_1 > 0.85
    refuse_bad("exp/lm", quality)
    quality, _ = measure(teacher(random_lm), sample, CPU)
    with pytest.raises(UserError) as error:
        refuse_bad("exp/lm", quality)
    line = str(error.value)
    assert f"is {quality.perplexity:.2f}, above the {quality.unigram:.2f}" in line
    assert line.startswith("lm exp/lm: its perplexity") and "\n" not in line


@pytest.mark.parametrize("perplexity", [math.inf, math.nan])
def test_a_perplexity_that_is_no_number_is_refused(perplexity):
    quality = Quality(100, perplexity, 9.0, 0.5, 0.8, 8, 0.1, 0.1)
    with pytest.raises(UserError, match=r"above the 9\.00 of unigram"):
        refuse_bad("x", quality)


@pytest.mark.parametrize(("n_units", "limit"), [(9, 9 * math.e**0.5), (10000, 9.136)])
def test_a_few_held_out_units_may_be_worse_by_chance(n_units, limit):
    """One standard error; the training text has enough units."""

    def quality(perplexity):
        return Quality(n_units, perplexity, 9.0, 0.5, 0.8, 8, 0.1, 0.1)

    refuse_bad("x", quality(0.999 * limit), "dev", held_out=True)
    with pytest.raises(UserError, match="its perplexity on dev is"):
        refuse_bad("x", quality(1.001 * limit), "dev", held_out=True)
    with pytest.raises(UserError, match=r"on the text is .* 9\.00 of unigram"):
        refuse_bad("x", quality(9.01))


@pytest.mark.parametrize(("shift", "neighbour"), [(1, "after"), (-1, "before")])
def test_labels_of_a_neighbour_are_refused(trained_lm, monkeypatch, shift, neighbour):
    """An LM whose row i predicts another unit than i."""
    made = teacher(trained_lm, top_k=2)
    right = LMTeacher._run

    def shifted(self, items, device, units):
        found = right(self, items, device, units)
        parts = found.tensors["ids"].split(found.sizes)
        ids = torch.cat([part.roll(shift, 0) for part in parts])
        return Targets(found.sizes, {**found.tensors, "ids": ids})

    monkeypatch.setattr(LMTeacher, "_run", shifted)
    quality, _ = measure(made, Sample(cycles(), 1000, len(TOKENS)), CPU)
    with pytest.raises(UserError, match=f"are among those of the unit {neighbour} the"):
        refuse_bad("exp/lm", quality)


def test_a_sample_is_spread_over_the_text_and_bounded():
    items = [encode(f"{a}{b}{c}") for a in CYCLE for b in CYCLE for c in CYCLE]
    sample = Sample([*items, [], *items], 90, len(TOKENS))
    size = sum(map(len, sample.items))
    assert 90 <= size <= 180 and len(set(sample.items)) == len(sample.items)
    assert sample.counts.sum() == 6 * len(items)
    places = np.array([items.index(list(item)) for item in sample.items])
    assert np.diff(places).max() < 20 and places[-1] > 320
    again = Sample([*items, [], *items], 90, len(TOKENS))
    assert again.items == sample.items
    # One sentence that is longer than the sample is kept.
    assert Sample([encode("abc" * 9)], 5, len(TOKENS)).items == [
        tuple(encode("abc" * 9))
    ]


def test_a_store_with_other_rows_is_refused(random_lm):
    made = teacher(random_lm)
    expected = made.targets(ITEMS, CPU)
    check_stored("s", made, ITEMS, expected)
    other = made.targets([[*reversed(item)] for item in ITEMS], CPU)
    other.tensors["ids"] = other.tensors["ids"].flip(1)
    with pytest.raises(UserError, match="label_store s: its most probable label is"):
        check_stored("s", made, ITEMS, other)
    sizes = [len(item) - (n == 1) for n, item in enumerate(ITEMS)]
    with pytest.raises(UserError, match="has 1 rows for the 0 units of the sentence"):
        check_stored("s", made, ITEMS, Targets(sizes, expected.tensors))
