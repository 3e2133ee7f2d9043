"""Fit a calibration: places of peaks without transcripts, confidences with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.inference.evidence import Evidence, Floats
from espnet_cif_hkd.inference.quiet import loudness
from espnet_cif_hkd.inference.spans import Timing, peaks

Bools = npt.NDArray[np.bool_]

# Speech is louder than this share of the way, in dB, from the quietest to the loudest.
_THRESHOLD = 0.25
_QUIET, _LOUD = 10, 95  # percentiles
_LEAST_RANGE = 15.0  # dB
_SHORTEST_TOKEN = 0.03  # seconds
_HOP, _WINDOW, _SUSTAINED = 0.01, 0.025, 3
# Shrinks the weights of features with the scale of 1.
_DECAY = 1e-3


def speech_range(samples: Floats, rate: int) -> tuple[float, float] | None:
    """Begin and end of the sound in a recording, from its energy.

    Args:
        samples: ``(S,)``.
        rate: Sampling rate in Hz.

    Returns:
        Seconds; None if there is no contrast between sound and silence.
    """
    hop, window = round(_HOP * rate), round(_WINDOW * rate)
    if len(samples) < 2 * window:
        return None
    level = loudness(samples, window, hop)
    quiet, loud = np.percentile(level, [_QUIET, _LOUD])
    if loud - quiet < _LEAST_RANGE:
        return None
    heard = level > quiet + _THRESHOLD * (loud - quiet)
    sustained = np.convolve(heard, np.ones(_SUSTAINED), "valid") == _SUSTAINED
    places = np.flatnonzero(sustained)
    if not len(places):
        return None
    middle = (window - hop) / 2 / rate  # a window stands for the hop in its middle
    first, last = places[0], places[-1] + _SUSTAINED
    return first * hop / rate + middle, last * hop / rate + middle


@dataclass(frozen=True)
class Margins:
    """Distances of an utterance's outer peaks from the ends of its sound, in seconds.

    Attributes:
        before: From the beginning of the sound to the first peak.
        after: From the last peak to the end of the sound.
    """

    before: float
    after: float


def margins(
    evidence: Evidence, silent: Sequence[bool], samples: Floats, rate: int
) -> Margins | None:
    """Measure one utterance; None if it has no sound or no tokens."""
    sound = speech_range(samples, rate)
    heard = np.flatnonzero(~np.asarray(silent, bool))
    if sound is None or not len(heard):
        return None
    first, last = peaks(evidence, len(samples) / rate)
    return Margins(float(first[heard[0]] - sound[0]), float(sound[1] - last[heard[-1]]))


def fit_timing(found: Sequence[Margins]) -> Timing | None:
    """Return medians, or None if no token is between them.

    Utterances with wrong first or last tokens, or with noise, do not matter as long as
    they are the smaller part. A peak may come before its token: ``lead`` < 0.
    """
    before = float(np.median([one.before for one in found]))
    after = float(np.median([one.after for one in found]))
    if before + after < _SHORTEST_TOKEN:
        return None
    return Timing(round(before, 4), round(after, 4))


def right_tokens(found: Sequence[str], reference: Sequence[str]) -> tuple[Bools, Bools]:
    """Compare a hypothesis with its reference by the smallest number of edits.

    Returns:
        Whether each token is right, ``(U,)``, and whether a token is missing before
        each token and at the end, ``(U + 1,)``.

    Example:
        >>> [one.tolist() for one in right_tokens("abxd", "abcde")]
        [[True, True, False, True], [False, False, False, False, True]]
    """
    edits = np.zeros((len(found) + 1, len(reference) + 1), np.int64)
    edits[:, 0], edits[0] = range(len(found) + 1), range(len(reference) + 1)
    columns = np.arange(len(reference) + 1)
    spelled = np.array(list(reference), object)
    for row, token in enumerate(found, 1):
        edits[row, 1:] = np.minimum(
            edits[row - 1, :-1] + (spelled != token), edits[row - 1, 1:] + 1
        )
        # Missing tokens: one edit for each column to the right.
        edits[row] = np.minimum.accumulate(edits[row] - columns) + columns
    right, missing = np.zeros(len(found), bool), np.zeros(len(found) + 1, bool)
    i, j = len(found), len(reference)
    while i or j:
        same = i > 0 and j > 0 and found[i - 1] == reference[j - 1]
        if i and j and edits[i, j] == edits[i - 1, j - 1] + (not same):
            i, j = i - 1, j - 1
            right[i] = same
        elif i and edits[i, j] == edits[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
            missing[i] = True
    return right, missing


def fit_stream(
    offline: Sequence[tuple[float, float]], streamed: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Medians of what the times of a stream lack.

    Args:
        offline: Start and end of each token in seconds, of complete utterances.
        streamed: The same of streams, at least one.

    Returns:
        Seconds to add to starts and to ends.
    """
    missing = np.median(np.array(offline) - np.array(streamed), axis=0)
    return round(float(missing[0]), 4), round(float(missing[1]), 4)


def fit_weights(features: Floats, right: Bools) -> tuple[float, ...]:
    """Logistic regression with a small decay.

    Args:
        features: ``(N, F)``.
        right: ``(N,)``.

    Returns:
        Constant and F weights.
    """
    from scipy.optimize import minimize

    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    scaled = np.hstack([np.ones((len(features), 1)), (features - centre) / scale])
    sign = np.where(right, 1.0, -1.0)

    def loss(weights: Floats) -> tuple[float, Floats]:
        score = sign * (scaled @ weights)
        pull = np.append(0.0, weights[1:])
        value = np.logaddexp(0.0, -score).mean() + _DECAY * pull @ pull
        slope = -(sign * np.exp(-np.logaddexp(0.0, score))) @ scaled / len(scaled)
        return float(value), slope + 2 * _DECAY * pull

    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True).x
    weights = found[1:] / scale
    return (float(found[0] - weights @ centre), *map(float, weights))


def widened(chosen: Bools) -> Bools:
    """Also choose the neighbours, ``(N,)``."""
    wide: Bools = np.convolve(np.pad(chosen, 1), np.ones(3), "valid") > 0
    return wide


def fit_limit(score: Floats, missing: Bools, false_alarms: float = 0.05) -> float:
    """Limit of warnings that this share of the gaps without a missing token exceeds.

    Args:
        score: ``(N,)``.
        missing: Whether a token is missing in or beside each gap, ``(N,)``.
        false_alarms: The share.
    """
    return float(np.quantile(score[~missing], 1 - false_alarms))


def area_under_curve(confidence: Floats, right: Bools) -> float:
    """Probability that a right token has a higher confidence than a wrong one (AUC)."""
    from scipy.stats import rankdata

    n_right = int(right.sum())
    ranks = rankdata(confidence)[right].sum()
    pairs = n_right * (len(right) - n_right)
    return (
        float((ranks - n_right * (n_right + 1) / 2) / pairs) if pairs else float("nan")
    )


def calibration_error(confidence: Floats, right: Bools, bins: int = 10) -> float:
    """Expected calibration error (ECE): mean gap between confidence and accuracy."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, confidence - right, bins)
    return float(np.abs(gaps).sum() / len(right))


def normalized_cross_entropy(confidence: Floats, right: Bools) -> float:
    """Share of the entropy of right and wrong that the confidence explains (NCE)."""
    kept = confidence.clip(1e-6, 1 - 1e-6)
    share = right.mean()
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    cross = -np.log(np.where(right, kept, 1 - kept)).mean()
    return float(1 - cross / entropy)


def quality(confidence: Floats, right: Bools) -> dict[str, float]:
    """AUC, ECE and NCE with four digits."""
    return {
        "auc": round(area_under_curve(confidence, right), 4),
        "ece": round(calibration_error(confidence, right), 4),
        "nce": round(normalized_cross_entropy(confidence, right), 4),
    }
