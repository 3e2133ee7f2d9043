"""Probability that a token is right, and warnings about missing tokens.

This module needs neither torch nor ESPnet, so that exported models use it as well.

The decoder's own probability of a token is too high where the decoder is used to its
texts, and it does not know of the sound. A logistic regression of five numbers, fitted
on decoded speech with transcripts, corrects this:

1. the decoder's log-probability of the token after the tokens before it, not the score
   of the search: a language model or CTC may have chosen the token;
2. the entropy of the decoder's distribution;
3. CTC's highest log-probability of the token in the frames of its peak;
4. CTC's log-probability of the most likely other token there;
5. how far the sum of alpha between this peak and its neighbours is from one a token.
"""

from collections.abc import Sequence

import numpy as np

from espnet_cif_hkd.inference.assemble import Span
from espnet_cif_hkd.inference.evidence import Evidence, Floats
from espnet_cif_hkd.inference.recognition import Flag

FEATURES = ("decoder", "entropy", "ctc", "ctc_other", "alpha")
# A smaller log-probability says no more.
_LEAST = -12.0
# Sum of alpha minus tokens from which on a token may be missing or too many.
_MISSING, _EXTRA = 0.75, -0.75


def features(evidence: Evidence, blank: int = 0) -> Floats:
    """The five numbers of each token, ``(U, 5)`` float64; 0 where one is unknown."""
    found = np.zeros((len(evidence.ids), len(FEATURES)))
    if evidence.logp is not None:
        found[:, 0] = evidence.logp
    if evidence.entropy is not None:
        found[:, 1] = evidence.entropy
    path = evidence.path
    if path is not None and evidence.ctc is not None:
        heard = np.flatnonzero(path >= 0)
        owners = path[heard]
        at_peak = np.array(evidence.ctc[heard], np.float64)  # (n, V)
        rows = np.arange(len(heard)), np.asarray(evidence.ids)[owners]
        own = at_peak[rows]
        at_peak[rows] = at_peak[:, blank] = -np.inf
        found[:, 2:4] = _LEAST
        np.maximum.at(found[:, 2], owners, own)
        np.maximum.at(found[:, 3], owners, at_peak.max(axis=1))
    found[:, 4] = np.abs(surplus(evidence))
    return found.clip(min=_LEAST)


def surplus(evidence: Evidence) -> Floats:
    """Sum of alpha around each token minus the number of tokens there, ``(U,)``.

    It is the sum from the peak before to the peak after, minus 2: near 1 if a token
    between them is missing. 0 without CTC or CIF, and for the first and last token.
    """
    found = np.zeros(len(evidence.ids))
    total, path = evidence.running_sum, evidence.path
    if total is None or path is None or len(found) < 3:
        return found
    frames = np.flatnonzero(path >= 0)
    counts = np.bincount(path[frames], minlength=len(found))
    middle = np.bincount(path[frames], frames, len(found)) / counts + 0.5
    sums = np.interp(middle, np.arange(len(total)), total)
    found[1:-1] = sums[2:] - sums[:-2] - 2
    return found


def confidences(
    evidence: Evidence, weights: Sequence[float] | None = None
) -> list[float | None]:
    """Probability that each token is right.

    Args:
        evidence: Of the hypothesis.
        weights: Constant and weights of :data:`FEATURES`; None: the decoder's
            probability, or CTC's without a decoder that gives one.

    Returns:
        U values between 0 and 1; None: the model gives neither.
    """
    if weights is not None:
        score = weights[0] + features(evidence) @ np.asarray(weights[1:])
        return list((1 / (1 + np.exp(-score.clip(-30, 30)))).tolist())
    if evidence.logp is not None:
        return list(np.exp(np.minimum(evidence.logp, 0.0)).tolist())
    if evidence.path is not None:
        return list(np.exp(np.minimum(features(evidence)[:, 2], 0.0)).tolist())
    return [None] * len(evidence.ids)


def flags(evidence: Evidence, spans: Sequence[Span]) -> list[Flag]:
    """Places where the sum of alpha does not fit the number of tokens.

    Neighbours with the same warning are one.
    """
    found: list[Flag] = []
    for index, value in enumerate(surplus(evidence).tolist()):
        if _EXTRA < value < _MISSING:
            continue
        kind = "missing" if value > 0 else "extra"
        start, end = (
            spans[max(index - 1, 0)][0],
            spans[min(index + 1, len(spans) - 1)][1],
        )
        if found and found[-1].kind == kind and found[-1].end >= start:
            value = max(value, found[-1].value, key=abs)
            start = found.pop().start
        found.append(Flag(kind, start, end, value))
    return found
