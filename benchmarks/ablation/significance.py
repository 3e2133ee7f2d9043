"""How certain a difference between two systems is.

The utterances of the test set are a sample, and so are the seeds of training. Three
intervals, all of 95 %, say how much of a difference may come from that:

- over utterances (paired bootstrap): utterances are drawn with replacement, each with
  its errors of all seeds of both systems. It says whether *these trained models* differ
  on *such utterances*. It ignores that another training would give other models.
- over utterances and seeds: the seeds of each system are drawn as well, independently
  for the two systems, because one seed gives them neither the same parameters nor the
  same random stream. For few seeds the interval is too narrow: with n runs the
  bootstrap sees (n - 1) / n of the variance.
- over seeds (Student's t): from the difference of each seed on the complete set, with
  n - 1 degrees of freedom. For three seeds it extends 2.5 standard deviations of these
  differences to each side.

Utterances are treated as independent, although speakers and some sentences recur.

This module must not be called ``statistics``: it would hide Python's own module from
every script that is started in this folder.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 10_000
_SEED = 20261121
_BLOCK = 500  # resamples at once, to bound memory

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``; NaN where it cannot be computed."""

    low: float
    high: float

    @property
    def side(self) -> int:
        """-1 if the interval is below 0, 1 if it is above 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Difference:
    """Error rates of two systems with the same seeds, in per cent.

    ``absolute`` is system minus baseline in points, ``relative`` is the same in per
    cent of the baseline. Below 0 the system makes fewer errors.

    Attributes:
        seeds: common to both systems; runs with other seeds are not used.
        baseline, rate: all seeds pooled.
        absolute_utterances, relative_utterances: over utterances.
        absolute_both, relative_both: over utterances and seeds; None with one seed.
        per_seed: absolute difference of each seed.
        over_seeds: Student's t of them; None with one seed.
    """

    seeds: tuple[int, ...]
    baseline: float
    rate: float
    absolute_utterances: Interval
    relative_utterances: Interval
    absolute_both: Interval | None
    relative_both: Interval | None
    per_seed: tuple[float, ...]
    over_seeds: Interval | None

    @property
    def absolute(self) -> float:
        return self.rate - self.baseline

    @property
    def relative(self) -> float:
        return 100 * self.absolute / self.baseline if self.baseline else math.nan


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for the deviation of one value.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values")
    return fmean(values), stdev(values) if len(values) > 1 else None


def compare(
    references: Ints,
    baseline: Ints,
    system: Ints,
    seeds: Sequence[int],
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare a system with the baseline.

    Args:
        references: reference length of each utterance, ``(U,)``, equal for all seeds.
        baseline, system: errors of each seed's model in each utterance, ``(S, U)``.
        seeds: S names of the rows.
        resamples: number of resamples of each bootstrap.

    Raises:
        ValueError: the shapes do not fit.
    """
    expected = len(seeds), len(references)
    if not seeds or baseline.shape != expected or system.shape != expected:
        raise ValueError(
            f"{baseline.shape} and {system.shape} errors for {len(seeds)} seeds and "
            f"{len(references)} utterances"
        )
    total = references.sum()
    rates = 100 * np.stack([baseline.sum(1), system.sum(1)]) / total
    pooled = rates.mean(1)
    drawn = _drawn_utterances(len(references), resamples)
    sums = _weighted(drawn, np.stack([references, baseline.sum(0), system.sum(0)]))
    over_utterances = _spread(sums[:, 0] * len(seeds), sums[:, 1], sums[:, 2])
    both: tuple[Interval | None, Interval | None] = (None, None)
    over_seeds = None
    per_seed = rates[1] - rates[0]
    if len(seeds) > 1:
        both = _spread(
            sums[:, 0] * len(seeds),
            _two_level(drawn, baseline, 1),
            _two_level(drawn, system, 2),
        )
        over_seeds = t_interval(per_seed.tolist())
    return Difference(
        seeds=tuple(seeds),
        baseline=float(pooled[0]),
        rate=float(pooled[1]),
        absolute_utterances=over_utterances[0],
        relative_utterances=over_utterances[1],
        absolute_both=both[0],
        relative_both=both[1],
        per_seed=tuple(per_seed.tolist()),
        over_seeds=over_seeds,
    )


@functools.lru_cache(maxsize=4)
def _drawn_utterances(number: int, resamples: int) -> NDArray[np.float32]:
    """How often each resample contains each utterance, ``(resamples, number)``.

    All comparisons of a set use the same draws, so their intervals can be compared.
    """
    return _draws(np.random.default_rng([_SEED, 0]), number, resamples)


def _draws(
    generator: np.random.Generator, number: int, resamples: int
) -> NDArray[np.float32]:
    drawn = np.empty((resamples, number), dtype=np.float32)
    for start in range(0, resamples, _BLOCK):
        block = drawn[start : start + _BLOCK]
        rows = np.arange(len(block))[:, None] * number
        picked = generator.integers(number, size=block.shape) + rows
        block[:] = np.bincount(picked.ravel(), minlength=block.size).reshape(
            block.shape
        )
    return drawn


def _weighted(drawn: NDArray[np.float32], columns: Ints) -> Floats:
    """Sums of ``columns (C, U)`` over the drawn utterances, ``(resamples, C)``."""
    # float32 needs no copy of ``drawn``, and has all integers up to 2 ** 24.
    largest = int(columns.max(initial=0)) * drawn.shape[1]
    dtype = np.float32 if largest <= 2**24 else np.float64
    weights = columns.T.astype(dtype)
    blocks = [
        drawn[start : start + _BLOCK].astype(dtype, copy=False) @ weights
        for start in range(0, len(drawn), _BLOCK)
    ]
    return np.concatenate(blocks).astype(np.float64)


def _two_level(drawn: NDArray[np.float32], errors: Ints, stream: int) -> Floats:
    """Errors over the drawn utterances of drawn seeds, ``(resamples,)``."""
    generator = np.random.default_rng([_SEED, stream])
    seeds = _draws(generator, len(errors), len(drawn))
    totals: Floats = (_weighted(drawn, errors) * seeds).sum(1)
    return totals


def _spread(
    references: Floats, baseline: Floats, system: Floats
) -> tuple[Interval, Interval]:
    """Intervals of the absolute (points) and the relative (per cent) difference."""
    with np.errstate(divide="ignore", invalid="ignore"):
        absolute = 100 * (system - baseline) / references
        relative = 100 * (system - baseline) / baseline
    return _percentiles(absolute), _percentiles(relative)


def _percentiles(values: Floats) -> Interval:
    """Interval of the finite values; a rare class may be absent from a resample."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return Interval(math.nan, math.nan)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(kept, [tail, 100 - tail])
    return Interval(float(low), float(high))


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean, 95 %.

    Raises:
        ValueError: fewer than two values.
    """
    mean, deviation = mean_and_sd(values)
    if deviation is None:
        raise ValueError("an interval needs two values")
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    half = quantile * deviation / math.sqrt(len(values))
    return Interval(mean - half, mean + half)
