"""Probability that a token is right, and warnings about missing tokens.

This module needs neither torch nor ESPnet, so that exported models use it as well.

The decoder's own probability of a token is no good confidence: it is used to right
prefixes, and it does not doubt its fired vectors. A logistic regression of five
numbers, fitted on decoded speech with transcripts, corrects this:

1. the decoder's probability of the token after the tokens before it, as a logit. It is
   not the score of the search, so a language model or CTC may have chosen the token;
2. CTC's highest probability of the token in the frames of its peak, as a logit;
3. the mean of the decoder's probabilities of this token and of one on each side;
4. the same of three on each side, because errors come together;
5. the same of CTC's probabilities.
"""

from collections.abc import Sequence

import numpy as np

from espnet_cif_hkd.inference.assemble import Span
from espnet_cif_hkd.inference.evidence import Evidence, Floats
from espnet_cif_hkd.inference.recognition import Flag

FEATURES = ("decoder", "ctc", "decoder near", "decoder around", "ctc around")
# Sum of alpha minus number of tokens from which on a warning is given, if not fitted.
LIMIT = 1.7
_LARGEST_LOGIT = 8.0
_GAPS = 5


def features(evidence: Evidence) -> Floats:
    """The five numbers of each token, ``(U, 5)`` float64; 0 where one is unknown."""
    found = np.zeros((len(evidence.ids), len(FEATURES)))
    decoder = None if evidence.logp is None else _probabilities(evidence.logp)
    ctc = ctc_probabilities(evidence)
    if decoder is not None:
        found[:, 0] = _logits(decoder)
        found[:, 2] = _smooth(decoder, 1)
        found[:, 3] = _smooth(decoder, 3)
    if ctc is not None:
        found[:, 1] = _logits(ctc)
        found[:, 4] = _smooth(ctc, 3)
    return found


def ctc_probabilities(evidence: Evidence) -> Floats | None:
    """CTC's highest probability of each token in its frames, ``(U,)``.

    None without CTC and for fewer frames than tokens.
    """
    path = evidence.path
    if path is None or evidence.ctc is None:
        return None
    frames = np.flatnonzero(path >= 0)
    tokens = np.asarray(evidence.ids)[path[frames]]
    found = np.zeros(len(evidence.ids))
    np.maximum.at(found, path[frames], _probabilities(evidence.ctc[frames, tokens]))
    return found


def _probabilities(logp: Floats) -> Floats:
    return np.exp(np.minimum(np.asarray(logp, np.float64), 0.0))


def _logits(probabilities: Floats) -> Floats:
    least = 1 / (1 + np.exp(_LARGEST_LOGIT))
    kept = probabilities.clip(least, 1 - least)
    return np.log(kept / (1 - kept))


def _smooth(values: Floats, width: int) -> Floats:
    """Mean of each value and of ``width`` on each side; the outer ones are repeated."""
    padded = np.pad(values, width, mode="edge")
    return np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), "valid")


def confidences(
    evidence: Evidence, weights: Sequence[float] | None = None
) -> list[float | None]:
    """Probability that each token is right.

    Args:
        evidence: Of the hypothesis.
        weights: Constant and weights of :data:`FEATURES`; None: the decoder's
            probability, or CTC's if no decoder gives one.

    Returns:
        U values between 0 and 1; None: the model gives neither.
    """
    if weights is not None:
        score = weights[0] + features(evidence) @ np.asarray(weights[1:])
        found: Floats | None = 1 / (1 + np.exp(-score.clip(-30, 30)))
    elif evidence.logp is not None:
        found = _probabilities(evidence.logp)
    else:
        found = ctc_probabilities(evidence)
    return [None] * len(evidence.ids) if found is None else found.tolist()


def surplus(evidence: Evidence) -> Floats | None:
    """Sum of alpha around each gap between tokens minus the tokens there, ``(U + 1,)``.

    A gap is from one CTC peak to the next, the beginning or the end; the value is for
    five gaps, and near 1 if a token between these peaks is missing. The alpha of
    ``<eos>`` is not counted.

    Returns:
        None without CTC or CIF, and for fewer frames than tokens.
    """
    total, path = evidence.running_sum, evidence.path
    if total is None or path is None:
        return None
    frames = np.flatnonzero(path >= 0)
    counts = np.bincount(path[frames])
    middle = np.bincount(path[frames], frames) / counts + 0.5
    sums = np.interp(middle, np.arange(len(total)), total)
    ends = total[-1] - sums[-1] - 1.5
    gaps = np.concatenate([[sums[0] - 0.5], np.diff(sums) - 1, [ends]])
    return np.convolve(np.pad(gaps, _GAPS // 2), np.ones(_GAPS), "valid")


def flags(
    evidence: Evidence, spans: Sequence[Span], limit: float = LIMIT
) -> list[Flag]:
    """Warnings where the sum of alpha does not fit the number of tokens.

    Args:
        evidence: Of the hypothesis.
        spans: Start and end of each token in seconds.
        limit: A warning is given from this :func:`surplus` on, more or less.

    Returns:
        In order of time; overlapping ones of a kind are one.
    """
    values = surplus(evidence)
    found: list[Flag] = []
    if values is None:
        return found
    for gap in np.flatnonzero(np.abs(values) > limit).tolist():
        value = float(values[gap])
        kind = "missing" if value > 0 else "extra"
        start, end = spans[max(gap - 1, 0)][0], spans[min(gap, len(spans) - 1)][1]
        if found and found[-1].kind == kind and found[-1].end >= start:
            value = max(value, found[-1].value, key=abs)
            start = found.pop().start
        found.append(Flag(kind, start, end, value))
    return found
