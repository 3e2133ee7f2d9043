"""Probability that a token is right.

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

from espnet_cif_hkd.inference.evidence import Evidence, Floats

FEATURES = ("decoder", "ctc", "decoder near", "decoder around", "ctc around")
_LARGEST_LOGIT = 8.0


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


def log_odds(weights: Sequence[float], values: Floats) -> Floats:
    """Of events with features ``(N, F)``; weights: a constant and ``F`` others."""
    scores: Floats = weights[0] + values @ np.asarray(weights[1:])
    return scores


def sigmoid(scores: Floats) -> Floats:
    """Probabilities of log-odds."""
    found: Floats = 1 / (1 + np.exp(-scores.clip(-30, 30)))
    return found


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
        found: Floats | None = sigmoid(log_odds(weights, features(evidence)))
    elif evidence.logp is not None:
        found = _probabilities(evidence.logp)
    else:
        found = ctc_probabilities(evidence)
    return [None] * len(evidence.ids) if found is None else found.tolist()
