"""Features of confidences, and the fits of a calibration."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.inference import fitting
from espnet_cif_hkd.inference.confidence import (
    FEATURES,
    confidences,
    features,
)
from espnet_cif_hkd.inference.evidence import Evidence


def evidence(peaks: list[int], alpha: np.ndarray | None = None) -> Evidence:
    """CTC has probability 0.5 for its token at each peak, else blank."""
    ids = [1 + n % 2 for n in range(len(peaks))]
    ctc = np.full((20, 3), math.log(0.01))
    ctc[:, 0] = math.log(0.98)
    ctc[peaks] = math.log(0.25)
    ctc[peaks, ids] = math.log(0.5)
    logp = np.log(np.linspace(0.9, 0.5, len(peaks)))
    return Evidence(ids, 20, 0.0, 0.04, alpha, ctc, logp)


def test_features_by_hand() -> None:
    found = features(evidence([2, 6, 10]))
    assert found.shape == (3, len(FEATURES))
    np.testing.assert_allclose(found[:, 0], np.log([9.0, 0.7 / 0.3, 1.0]))
    np.testing.assert_allclose(found[:, 1], 0.0, atol=1e-12)
    np.testing.assert_allclose(found[:, 2], [2.5 / 3, 0.7, 1.7 / 3])
    np.testing.assert_allclose(found[1, 3], (3 * 0.9 + 0.7 + 3 * 0.5) / 7)
    np.testing.assert_allclose(found[:, 4], 0.5)


def test_uncalibrated_is_the_decoder_or_ctc_or_nothing() -> None:
    one = evidence([2, 6, 10])
    assert confidences(one) == pytest.approx([0.9, 0.7, 0.5])
    ctc = Evidence(one.ids, 20, 0.0, 0.04, ctc=one.ctc)
    assert confidences(ctc) == pytest.approx([0.5] * 3)
    assert confidences(Evidence([1, 2], 20, 0.0, 0.04)) == [None, None]


def test_calibrated_is_the_logistic_function() -> None:
    one = evidence([2, 6, 10])
    weights = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    score = 0.1 + features(one) @ np.array(weights[1:])
    assert confidences(one, weights) == pytest.approx(1 / (1 + np.exp(-score)))
    assert confidences(one, [900.0] * 6) == pytest.approx([1.0] * 3)


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_right_tokens_need_the_fewest_edits(found: str, reference: str) -> None:
    right, missing = fitting.right_tokens(found, reference)
    edits = [[i + j for j in range(len(reference) + 1)] for i in range(len(found) + 1)]
    for i, one in enumerate(found):
        for j, other in enumerate(reference):
            edits[i + 1][j + 1] = min(
                edits[i][j] + (one != other), edits[i][j + 1] + 1, edits[i + 1][j] + 1
            )
    n_right = int(right.sum())
    # Right tokens occur in the reference in this order.
    letters = iter(reference)
    assert all(one in letters for one, good in zip(found, right) if good)
    assert edits[-1][-1] >= max(len(found), len(reference)) - n_right
    assert bool(missing.any()) or len(reference) <= len(found)


def test_weights_are_found_again() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1.0, 2.0, (20000, 3))
    true = np.array([0.5, 1.0, -0.5, 0.0])
    chance = 1 / (1 + np.exp(-true[0] - values @ true[1:]))
    found = fitting.fit_weights(values, rng.random(len(values)) < chance)
    assert found == pytest.approx(true, abs=0.1)


def test_a_constant_feature_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    values = np.hstack([rng.normal(size=(500, 1)), np.zeros((500, 1))])
    found = fitting.fit_weights(values, values[:, 0] + rng.normal(size=500) > 0)
    assert found[2] == 0.0


def test_measures_by_hand_and_by_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    sure = rng.random(400).round(2)
    right = rng.random(400) < sure
    found = fitting.quality(sure, right)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(right, sure), abs=1e-4)
    cross = metrics.log_loss(right, sure.clip(1e-6, 1 - 1e-6))
    prior = metrics.log_loss(right, np.full(400, right.mean()))
    assert found["nce"] == pytest.approx(1 - cross / prior, abs=1e-4)
    assert fitting.calibration_error(
        np.array([0.25, 0.25, 0.95]), np.array([True, False, True])
    ) == pytest.approx((0.5 + 0.05) / 3)
    assert fitting.normalized_cross_entropy(
        np.full(4, 0.75), np.array([True, True, True, False])
    ) == pytest.approx(0.0)


def test_the_range_of_sound() -> None:
    rate = 8000
    samples = np.random.default_rng(0).normal(0, 1e-4, 2 * rate)
    samples[rate // 2 : rate] += np.random.default_rng(1).normal(0, 0.1, rate // 2)
    found = fitting.speech_range(samples, rate)
    assert found == pytest.approx((0.5, 1.0), abs=0.015)
    assert fitting.speech_range(samples[:100], rate) is None
    assert fitting.speech_range(np.ones(rate), rate) is None


def test_timing_is_the_median_and_may_be_before_the_sound() -> None:
    known = [fitting.Margins(-0.08, 0.3 + n) for n in range(3)]
    timing = fitting.fit_timing(known)
    assert timing is not None
    assert (timing.lead, timing.trail) == (-0.08, 1.3)
    assert fitting.fit_timing([fitting.Margins(0.1, -0.2)]) is None


def test_the_offset_of_peaks_is_found_within_15_ms() -> None:
    """Sounds with silence around, whose peaks are at a known place."""
    rate, known = 8000, []
    rng = np.random.default_rng(0)
    for _ in range(15):
        start, length = rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.6)
        samples = rng.normal(0, 1e-4, rate)
        sound = slice(int(start * rate), int((start + length) * rate))
        samples[sound] += rng.normal(0, 0.1, sound.stop - sound.start)
        ctc = np.full((200, 3), -9.0)
        ctc[:, 0] = 0.0
        for token, place in ((1, start + 0.05), (2, start + length - 0.1)):
            ctc[round(place / 0.005), [0, token]] = -9.0, 0.0
        one = Evidence([1, 2], 200, 0.0, 0.005, ctc=ctc)
        found = fitting.margins(one, [False, False], samples, rate)
        assert found is not None
        known.append(found)
    timing = fitting.fit_timing(known)
    assert timing is not None
    assert timing.lead == pytest.approx(0.05, abs=0.015)
    assert timing.trail == pytest.approx(0.1, abs=0.015)


def test_the_limit_has_the_share_of_false_alarms() -> None:
    values, missing = np.arange(100.0), np.arange(100) >= 80
    limit = fitting.fit_limit(values, missing, 0.1)
    assert np.mean(values[~missing] > limit) == pytest.approx(0.1)
