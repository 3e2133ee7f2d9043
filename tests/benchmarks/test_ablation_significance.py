"""Intervals: against a slow oracle, by their properties, and by their coverage."""

import itertools
import math

import ablation_cells  # noqa: F401  (puts the ablation on the path)
import numpy as np
import pytest
from ablation import significance
from ablation.significance import Interval, compare, mean_and_sd, t_interval
from hypothesis import given
from hypothesis import strategies as st

COUNTS = st.integers(0, 30)


@st.composite
def designs(draw):
    """References ``(U,)`` and errors ``(S, U)`` of two systems."""
    number, runs = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    row = st.lists(COUNTS, min_size=number, max_size=number)
    references = draw(st.lists(st.integers(1, 30), min_size=number, max_size=number))
    table = st.lists(row, min_size=runs, max_size=runs)
    return np.array(references), np.array(draw(table)), np.array(draw(table))


def slow(references, baseline, system, drawn, seeds=None):
    """Differences of all resamples, one utterance of one seed at a time."""
    absolute, relative = [], []
    for number, counts in enumerate(drawn):
        sums = [0, 0, 0]
        for utt, times in enumerate(counts):
            for _ in range(times):
                sums[0] += references[utt] * len(baseline)
                for side, errors in ((1, baseline), (2, system)):
                    weights = seeds[side - 1][number] if seeds else [1] * len(errors)
                    for seed, row in enumerate(errors):
                        sums[side] += row[utt] * weights[seed]
        absolute.append(100 * (sums[2] - sums[1]) / sums[0])
        if sums[1]:
            relative.append(100 * (sums[2] - sums[1]) / sums[1])
    return absolute, relative


def percentile(values, share):
    """By linear interpolation between ordered values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def near(interval, values):
    expected = [percentile(values, 0.025), percentile(values, 0.975)]
    assert [interval.low, interval.high] == pytest.approx(expected, abs=1e-9)


def integers(drawn):
    return drawn.astype(int).tolist()


def test_against_a_slow_oracle():
    generator = np.random.default_rng(3)
    references = generator.integers(1, 20, 7)
    baseline, system = (generator.binomial(references, p, (2, 7)) for p in (0.5, 0.4))
    found = compare(references, baseline, system, [1, 2], resamples=600)
    drawn = significance._drawn_utterances(7, 600)
    assert (drawn.sum(1) == 7).all()
    absolute, relative = slow(references, baseline, system, integers(drawn))
    near(found.absolute_utterances, absolute)
    near(found.relative_utterances, relative)
    seeds = [
        integers(
            significance._draws(
                np.random.default_rng([significance._SEED, stream]), 2, 600
            )
        )
        for stream in (1, 2)
    ]
    absolute, relative = slow(references, baseline, system, integers(drawn), seeds)
    near(found.absolute_both, absolute)
    near(found.relative_both, relative)


@pytest.mark.parametrize("factor", [1, 2**20])
def test_sums_are_exact(factor):
    """Also those that float32 does not have."""
    drawn = significance._drawn_utterances(50, 600)
    columns = np.random.default_rng(1).integers(0, 40, (3, 50)) * factor + 1
    expected = drawn.astype(np.int64) @ columns.T
    assert (significance._weighted(drawn, columns) == expected).all()


def test_draws_have_the_distribution_of_all_resamples():
    """Four utterances have 256 ordered resamples: their exact mean and variance."""
    references = np.array([3, 8, 1, 5])
    baseline, system = np.array([[1, 4, 0, 2]]), np.array([[2, 2, 1, 0]])
    exact = []
    for picked in itertools.product(range(4), repeat=4):
        total = references[list(picked)].sum()
        exact.append(100 * (system - baseline)[0, list(picked)].sum() / total)
    drawn = significance._drawn_utterances(4, 20_000)
    values = 100 * drawn @ (system - baseline)[0] / (drawn @ references)
    assert values.mean() == pytest.approx(np.mean(exact), abs=0.5)
    assert values.std() == pytest.approx(np.std(exact), rel=0.03)


@given(designs())
def test_equal_systems_do_not_differ(design):
    references, errors, _ = design
    found = compare(references, errors, errors, range(len(errors)), resamples=200)
    assert found.absolute == 0
    assert found.absolute_utterances == Interval(0, 0)
    assert set(found.per_seed) == {0}
    if len(errors) > 1:
        assert found.over_seeds == Interval(0, 0)
        assert found.absolute_both.low <= 0 <= found.absolute_both.high


@given(designs(), st.integers(0, 5))
def test_errors_that_both_make_change_no_absolute_difference(design, more):
    references, baseline, system = design
    seeds = range(len(baseline))
    one = compare(references, baseline, system, seeds, resamples=200)
    other = compare(
        references,
        baseline + more * references,
        system + more * references,
        seeds,
        resamples=200,
    )
    assert other.absolute == pytest.approx(one.absolute, abs=1e-9)
    for name in ("low", "high"):
        assert getattr(other.absolute_utterances, name) == pytest.approx(
            getattr(one.absolute_utterances, name), abs=1e-9
        )
    assert other.per_seed == pytest.approx(one.per_seed, abs=1e-9)


@given(designs())
def test_exchanged_systems_have_the_opposite_difference(design):
    references, baseline, system = design
    seeds = range(len(baseline))
    one = compare(references, baseline, system, seeds, resamples=200)
    other = compare(references, system, baseline, seeds, resamples=200)
    assert other.absolute == pytest.approx(-one.absolute)
    assert other.absolute_utterances.low == pytest.approx(
        -one.absolute_utterances.high, abs=1e-9
    )
    assert other.absolute_utterances.side == -one.absolute_utterances.side


def test_a_run_repeated_tells_nothing_new_of_utterances():
    references = np.array([5, 9, 12, 4])
    baseline, system = np.array([[2, 3, 3, 1]]), np.array([[1, 3, 4, 0]])
    one = compare(references, baseline, system, [1], resamples=300)
    two = compare(
        references, np.tile(baseline, (2, 1)), np.tile(system, (2, 1)), [1, 2], 300
    )
    assert one.absolute_both is None and one.over_seeds is None
    assert two.absolute_utterances == one.absolute_utterances
    assert two.absolute_both == one.absolute_utterances


def simulated(generator, runs, training, effect):
    """Two systems whose rates vary by utterance and by training."""
    references = generator.integers(5, 40, 60)
    hard = generator.normal(0.35, 0.1, 60)
    tables = []
    for extra in (0.0, effect):
        rates = hard + extra + generator.normal(0, training, (runs, 1))
        tables.append(generator.binomial(references, rates.clip(0.01, 0.99)))
    return references, *tables


def coverage(runs, training, trials=150, effect=-0.02):
    """How often each interval holds the true difference, in points."""
    generator = np.random.default_rng(17)
    held = dict.fromkeys(("absolute_utterances", "absolute_both", "over_seeds"), 0)
    for _ in range(trials):
        data = simulated(generator, runs, training, effect)
        found = compare(*data, range(runs), resamples=400)
        for name in held:
            interval = getattr(found, name)
            held[name] += interval.low <= 100 * effect <= interval.high
    return {name: count / trials for name, count in held.items()}


def test_intervals_hold_where_training_does_not_vary():
    held = coverage(runs=3, training=0.0)
    assert held["absolute_utterances"] == pytest.approx(0.95, abs=0.05)
    assert held["absolute_both"] >= 0.94
    assert held["over_seeds"] == pytest.approx(0.95, abs=0.05)


def test_utterances_alone_are_too_sure_where_training_varies():
    held = coverage(runs=4, training=0.03)
    assert held["absolute_utterances"] < 0.75
    assert held["absolute_both"] > held["absolute_utterances"] + 0.1
    assert held["over_seeds"] == pytest.approx(0.95, abs=0.05)


def test_the_result_is_the_same_each_time():
    data = simulated(np.random.default_rng(0), 3, 0.01, 0.0)
    assert compare(*data, [1, 2, 3], 300) == compare(*data, [1, 2, 3], 300)


def test_a_class_that_resamples_lack_is_left_out_of_them():
    references = np.array([1, 0, 0])
    found = compare(references, np.array([[1, 0, 0]]), np.array([[0, 0, 0]]), [1], 200)
    assert found.absolute_utterances == Interval(-100, -100)


def test_a_baseline_without_errors_has_no_relative_difference():
    found = compare(np.array([4, 4]), np.array([[0, 0]]), np.array([[1, 0]]), [1], 200)
    assert math.isnan(found.relative) and math.isnan(found.relative_utterances.low)
    assert found.relative_utterances.side == 0


def test_one_value_has_no_deviation_and_none_no_mean():
    assert mean_and_sd([3.0]) == (3.0, None)
    assert mean_and_sd([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)))
    with pytest.raises(ValueError, match="no values"):
        mean_and_sd([])
    with pytest.raises(ValueError, match="two values"):
        t_interval([1.0])


@pytest.mark.parametrize(
    ("number", "quantile"),
    [(2, 12.7062), (3, 4.3027), (4, 3.1824), (5, 2.7764), (10, 2.2622)],
)
def test_students_interval_has_the_quantiles_of_the_tables(number, quantile):
    values = list(range(number))
    mean, deviation = mean_and_sd(values)
    found = t_interval(values)
    half = quantile * deviation / math.sqrt(number)
    assert [found.low, found.high] == pytest.approx(
        [mean - half, mean + half], abs=1e-4
    )


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"3 seeds and 2 utterances"):
        compare(np.array([1, 2]), np.zeros((3, 2)), np.zeros((2, 2)), [1, 2, 3])
