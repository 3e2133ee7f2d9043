"""Warnings about missing tokens, and tokens too many, between the tokens of a result.

This module needs neither torch nor ESPnet, so that exported models use it as well.

A gap is from one CTC peak to the next, the beginning or the end. Without calibration a
warning compares the sum of alpha with the number of tokens (:func:`surplus`). With
letters this sum is spread over frames that CTC gives to other letters, so it finds few
missing ones. CTC itself knows more: a logistic regression of four numbers is fitted on
decoded speech with transcripts.

1. the probability of tokens other than the two neighbours, summed over the frames of
   the gap, as log(1 + x);
2. the number of tokens that CTC expects between the peaks two before and two after the
   gap, minus those of the hypothesis. A token is expected as often as its probability
   rises from one frame to the next;
3. the frames of the gap;
4. the tokens that begin between the middles of the two peaks on CTC's best path of any
   text, minus the one that ends the gap.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.inference.assemble import Span
from espnet_cif_hkd.inference.confidence import log_odds, sigmoid
from espnet_cif_hkd.inference.evidence import Evidence, Floats
from espnet_cif_hkd.inference.recognition import Flag

FEATURES = ("unexplained", "expected", "frames", "best path")
# Sum of alpha minus number of tokens from which on a warning is given.
LIMIT = 1.7
_GAPS = 5


def features(evidence: Evidence, blank: int = 0) -> Floats | None:
    """The four numbers of each gap, ``(U + 1, 4)`` float64.

    Returns:
        None without CTC, without tokens, and for fewer frames than tokens.
    """
    if evidence.peaks is None or evidence.ctc is None:
        return None
    n_frames, gaps = len(evidence.ctc), np.arange(len(evidence.ids) + 1)
    first, last, middle = evidence.peaks
    starts, ends = np.append(0, last + 1), np.append(first, n_frames)
    best = evidence.ctc.argmax(axis=1)
    # Tables of frames and vocabulary keep the precision of the input.
    tokens = np.exp(np.minimum(evidence.ctc, 0.0))  # (T, V)
    tokens[:, blank] = 0.0

    def between(values: Floats) -> Floats:
        sums = _sums(values.astype(np.float64))
        found: Floats = sums[ends] - sums[starts]
        return found

    ids = np.concatenate([[blank], evidence.ids, [blank]])
    own = between(tokens[:, ids])  # (U + 1, U + 2)
    free = between(tokens.sum(axis=1, dtype=np.float64)) - own[gaps, gaps]
    free -= np.where(ids[1:] != ids[:-1], own[gaps, gaps + 1], 0.0)

    rising = np.diff(tokens, axis=0, prepend=0)
    rises = _sums(np.maximum(rising, 0.0, out=rising).sum(axis=1, dtype=np.float64))
    borders = np.concatenate([[0.0], middle + 0.5, [n_frames]])
    window = borders[[(gaps - 1).clip(0), (gaps + 2).clip(max=len(ids) - 1)]]
    expected = np.diff(np.interp(window, np.arange(n_frames + 1), rises), axis=0)[0]
    inside = (gaps > 0).astype(int) + (gaps < len(evidence.ids))

    begins = np.flatnonzero((best != blank) & (best != np.append(blank, best[:-1])))
    begun = np.diff(np.searchsorted(begins, borders))
    return np.stack(
        [
            np.log1p(free.clip(0.0)),
            expected - inside,
            ends - starts,
            begun - (gaps < len(evidence.ids)),
        ],
        axis=1,
    )


def surplus(evidence: Evidence) -> Floats | None:
    """Sum of alpha around each gap between tokens minus the tokens there, ``(U + 1,)``.

    The value is for five gaps, and near 1 if a token between these peaks is missing.
    The alpha of ``<eos>`` is not counted.

    Returns:
        None without CTC or CIF, and for fewer frames than tokens.
    """
    total, peaks = evidence.running_sum, evidence.peaks
    if total is None or peaks is None:
        return None
    _, _, middle = peaks
    sums = np.interp(middle + 0.5, np.arange(len(total)), total)
    ends = total[-1] - sums[-1] - 1.5
    gaps = np.concatenate([[sums[0] - 0.5], np.diff(sums) - 1, [ends]])
    return np.convolve(np.pad(gaps, _GAPS // 2), np.ones(_GAPS), "valid")


def flags(
    evidence: Evidence,
    spans: Sequence[Span],
    weights: Sequence[float] | None = None,
    limit: float = 0.0,
) -> list[Flag]:
    """Warnings of missing tokens, and of tokens too many.

    Args:
        evidence: Of the hypothesis.
        spans: Start and end of each token in seconds.
        weights: Constant and weights of :data:`FEATURES`; None: a token is missing
            where :func:`surplus` is above :data:`LIMIT`.
        limit: With ``weights``, a warning is given from this score on, in log-odds.

    Returns:
        In order of time; overlapping ones of a kind are one. ``value`` is the
        probability that a token is missing with ``weights``, otherwise the surplus.
    """
    alpha = surplus(evidence)
    known = None if weights is None else features(evidence)
    found: list[tuple[int, str, float]] = []
    if known is not None and weights is not None:
        score = log_odds(weights, known)
        sure = sigmoid(score)
        found += [(g, "missing", float(sure[g])) for g in _where(score > limit)]
    elif alpha is not None:
        found += [(g, "missing", float(alpha[g])) for g in _where(alpha > LIMIT)]
    if alpha is not None:
        found += [(g, "extra", float(alpha[g])) for g in _where(alpha < -LIMIT)]
    return _joined(sorted(found), spans)


def _where(chosen: npt.NDArray[np.bool_]) -> list[int]:
    places: list[int] = np.flatnonzero(chosen).tolist()
    return places


def _joined(
    found: Iterable[tuple[int, str, float]], spans: Sequence[Span]
) -> list[Flag]:
    flags: list[Flag] = []
    for gap, kind, value in found:
        start, end = spans[max(gap - 1, 0)][0], spans[min(gap, len(spans) - 1)][1]
        if flags and flags[-1].kind == kind and flags[-1].end >= start:
            value = max(value, flags[-1].value, key=abs)
            start = flags.pop().start
        flags.append(Flag(kind, start, end, value))
    return flags


def _sums(values: npt.NDArray[Any]) -> Floats:
    """Sums of the frames before each border, ``(T + 1, …)``."""
    return np.cumsum(np.concatenate([np.zeros_like(values[:1]), values]), axis=0)
