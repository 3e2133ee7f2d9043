"""The sentences say what the numbers allow, and no more."""

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


def told(found):
    return sentence("HKD", "CIF", "test CER without LM", found)


def test_it_helps():
    text = told(difference(BELOW, BELOW, BELOW))
    assert text == (
        "**HKD is better than CIF.** Test CER without LM is 32.0 % against 34.0 %: "
        "2.0 points lower (5.9 % relative). 95 % intervals of the difference in "
        "points: [−3.0, −1.0] over utterances, [−3.0, −1.0] over utterances and seeds, "
        "[−3.0, −1.0] over seeds alone. None of them contains 0; all 3 seeds are lower."
    )


def test_it_hurts():
    text = told(difference(ABOVE, ABOVE, ABOVE, (1.0, 2.0, 3.0)))
    assert text.startswith("**HKD is worse than CIF.**")
    assert "2.2 points higher" in text and "all 3 seeds are higher" in text
    assert "both seeds are higher" in told(difference(ABOVE, ABOVE, ABOVE, (1.0, 2.0)))


def test_nothing_is_shown_by_an_interval_around_0():
    text = told(difference(AROUND, AROUND, BELOW, (-2.0, 1.0, 0.0)))
    assert text.startswith("**No difference between HKD and CIF was shown.**")
    assert "The first contains 0" in text
    assert "1 of 3 seeds are lower, 1 higher" in text


@pytest.mark.parametrize(
    ("both", "seeds", "finding", "words"),
    [
        (BELOW, AROUND, Finding.SEEDS_OPEN, "3 seeds do not show that it is"),
        (AROUND, AROUND, Finding.TRAINING_OPEN, "that training makes them so was not"),
        (AROUND, BELOW, Finding.TRAINING_OPEN, "The second contains 0"),
        (None, None, Finding.ONE_SEED, "one run of HKD is better than one of CIF"),
    ],
)
def test_less_than_all_intervals_is_no_claim(both, seeds, finding, words):
    found = difference(BELOW, both, seeds)
    assert find(found) is finding
    assert words.lower() in told(found).lower()
    assert not told(found).startswith("**HKD is")
    assert "**" not in in_a_word(found)


def test_one_run_without_a_difference_speaks_of_one_interval():
    text = told(difference(AROUND))
    assert "It contains 0" in text and "seeds" not in text


def test_a_tiny_difference_is_called_equal():
    assert "equal to within 0.05 points" in told(difference(Interval(-0.5, 0.5)))


def test_headlines():
    better = difference(BELOW, BELOW, BELOW)
    worse = difference(ABOVE, ABOVE, ABOVE, (1.0, 2.0, 3.0))
    none = difference(AROUND, AROUND, AROUND)
    assert headline("CIF", [], 3) == "Nothing can be compared yet."
    assert headline("CIF", [("A", none), ("B", none)], 2) == (
        "Nothing was shown to be better or worse than CIF."
    )
    assert headline("CIF", [("A", none), ("B", worse), ("C", better)], 3) == (
        "C was shown to be better than CIF; B was shown to be worse than CIF; for A "
        "neither was shown."
    )
    assert headline("CIF", [("A", better), ("B", better)], 3) == (
        "A and B were shown to be better than CIF. Only 2 of 3 systems have been run."
    )


RANGES = st.tuples(st.floats(-5, 5), st.floats(0, 5))


@given(st.tuples(RANGES, RANGES, RANGES))
def test_a_claim_is_made_only_if_no_interval_contains_0(ranges):
    intervals = [Interval(low, low + width) for low, width in ranges]
    found = difference(*intervals)
    contain = any(one.low <= 0 <= one.high for one in intervals)
    sides = {one.low > 0 for one in intervals}
    claimed = bool(re.match(r"\*\*HKD is (better|worse) than CIF\.", told(found)))
    assert claimed == (not contain and len(sides) == 1)
    if claimed:
        assert ("better" in told(found)) == (intervals[0].high < 0)
    if intervals[0].low <= 0 <= intervals[0].high:
        assert in_a_word(found) == "no difference shown"


def test_signs():
    assert [signed(v) for v in (1.26, -0.04, -2.0)] == ["+1.3", "0.0", "−2.0"]
    assert signed(math.nan) == "–"
    assert bracket(Interval(-1, 0.26), 2) == "[−1.00, +0.26]"
    assert bracket(None) == bracket(Interval(math.nan, math.nan)) == "–"
