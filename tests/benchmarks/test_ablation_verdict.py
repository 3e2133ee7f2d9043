"""The sentences claim what the intervals allow, and no more."""

import math
import re

import ablation_cells  # noqa: F401  (puts the ablation on the path)
import pytest
from ablation.significance import Difference, Interval
from ablation.verdict import (
    Finding,
    bracket,
    find,
    headline,
    in_a_word,
    sentence,
    signed,
)
from hypothesis import given
from hypothesis import strategies as st

BELOW, ABOVE, AROUND = Interval(-3, -1), Interval(0.5, 4), Interval(-2, 1)


def difference(utterances, both=None, seeds=None, per_seed=(-2.0, -1.0, -3.0)):
    low, high = utterances.low, utterances.high
    middle = (low + high) / 2
    if both is None:
        per_seed = per_seed[:1]
    return Difference(
        seeds=tuple(range(1, len(per_seed) + 1)),
        baseline=34.0,
        rate=34.0 + middle,
        absolute_utterances=utterances,
        relative_utterances=utterances,
        absolute_both=both,
        relative_both=both,
        per_seed=per_seed,
        over_seeds=seeds,
    )


def said(found):
    return sentence("HKD", "CIF", "test CER without LM", found)


def test_a_claim_has_its_numbers():
    text = said(difference(BELOW, BELOW, BELOW))
    assert text.startswith("***HKD* is better than *CIF*.**")
    assert re.findall(r"[−+\d.]*\d", text) == [
        *("32.0", "34.0", "2.0", "5.9"),  # rates, points, relative
        *("95", "−3.0", "−1.0", "−3.0", "−1.0", "−3.0", "−1.0"),  # three intervals
        *("0", "3"),  # "contains 0", seeds
    ]
    assert "lower with all 3 seeds" in text


def test_more_errors_are_worse():
    text = said(difference(ABOVE, ABOVE, ABOVE, (1.0, 2.0, 3.0)))
    assert text.startswith("***HKD* is worse than *CIF*.**")
    assert "2.2 points higher" in text and "higher with all 3 seeds" in text
    assert "both seeds" in said(difference(ABOVE, ABOVE, ABOVE, (1.0, 2.0)))


def test_nothing_is_shown_by_an_interval_around_0():
    found = difference(AROUND, AROUND, BELOW, (-2.0, 1.0, 0.0))
    assert find(found) is Finding.NOT_SHOWN
    assert said(found).startswith("**No difference between *HKD* and *CIF*")
    assert "lower with 1 of 3 seeds, higher with 1" in said(found)


@pytest.mark.parametrize(
    ("both", "seeds", "finding"),
    [
        (BELOW, AROUND, Finding.SEEDS_OPEN),
        (AROUND, AROUND, Finding.TRAINING_OPEN),
        (AROUND, BELOW, Finding.TRAINING_OPEN),
        (None, None, Finding.ONE_SEED),
    ],
)
def test_less_than_all_intervals_is_no_claim(both, seeds, finding):
    found = difference(BELOW, both, seeds)
    assert find(found) is finding
    assert not said(found).startswith("***HKD* is")
    assert "**" not in in_a_word(found)


def test_each_finding_has_its_own_words():
    all_of = [
        difference(BELOW, BELOW, BELOW),
        difference(BELOW, BELOW, AROUND),
        difference(BELOW, AROUND, AROUND),
        difference(BELOW),
        difference(AROUND),
    ]
    assert {find(one) for one in all_of} == set(Finding)
    assert len({said(one).partition("**.")[0] for one in all_of}) == len(Finding)
    assert len({in_a_word(one) for one in all_of}) == len(Finding)


def test_one_run_has_one_interval():
    text = said(difference(AROUND))
    assert text.count("[") == 1 and "seeds" not in text


def test_a_tiny_difference_has_no_direction():
    text = said(difference(Interval(-0.5, 0.5)))
    assert "lower" not in text and "higher" not in text


def test_a_headline_sorts_the_systems_by_finding():
    better = difference(BELOW, BELOW, BELOW)
    worse = difference(ABOVE, ABOVE, ABOVE, (1.0, 2.0, 3.0))
    none = difference(AROUND, AROUND, AROUND)
    assert re.search("[Nn]othing", headline("CIF", [], 3))
    text = headline("CIF", [("A", none), ("B", none)], 2)
    assert text == "No system was shown to be better or worse than *CIF*."
    text = headline("CIF", [("A", none), ("B", worse), ("C", better)], 3)
    assert text == "Better than *CIF*: *C*. Worse than *CIF*: *B*. Not decided: *A*."
    text = headline("CIF", [("A", better), ("+ B, C and D", better)], 3)
    assert text.startswith("Better than *CIF*: *A*; *+ B, C and D*. Only 2 of 3")
    once = [difference(one) for one in (BELOW, ABOVE, AROUND)]
    text = headline("CIF", list(zip("ABC", once, strict=True)), 3)
    assert text == (
        "In one run of each, better than *CIF*: *A*. In one run of each, worse than "
        "*CIF*: *B*. Not decided: *C*."
    )


RANGES = st.tuples(st.floats(-5, 5), st.floats(0, 5))


@given(st.tuples(RANGES, RANGES, RANGES))
def test_a_claim_is_made_only_if_no_interval_contains_0(ranges):
    intervals = [Interval(low, low + width) for low, width in ranges]
    found = difference(*intervals)
    contain = any(one.low <= 0 <= one.high for one in intervals)
    sides = {one.low > 0 for one in intervals}
    claimed = bool(re.match(r"\*{3}HKD\* is (better|worse) than ", said(found)))
    assert claimed == (not contain and len(sides) == 1)
    if claimed:
        assert ("better" in said(found)) == (intervals[0].high < 0)
    assert claimed == ("**" in in_a_word(found))


def test_signs():
    assert [signed(v) for v in (1.26, -0.04, -2.0)] == ["+1.3", "0.0", "−2.0"]
    assert signed(math.nan) == "–"
    assert bracket(Interval(-1, 0.26), 2) == "[−1.00, +0.26]"
    assert bracket(None) == bracket(Interval(math.nan, math.nan)) == "–"
