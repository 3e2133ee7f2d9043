"""Start and end of each token in seconds.

This module needs neither torch nor ESPnet, so that exported models use it as well.

CTC's peaks say where a token is, but neither where it starts nor where it ends. Without
CTC, the place is where the running sum of alpha passes the middle of the token's unit.
A peak comes ``lead`` seconds after the start of its token and ``trail`` seconds before
its end; both differ between models and are fitted on speech without transcripts
(:mod:`espnet_cif_hkd.inference.calibration`). Between two peaks the rule is:

- further apart than ``lead + trail`` and a pause: one token ends, there is silence, the
  next token starts;
- otherwise the border divides their distance in the ratio of ``trail`` to ``lead``. If
  peaks come before their tokens (``lead`` < 0) it is ``-lead`` after the second peak,
  because the start of a token is known better than the length of the one before; if
  they come after them (``trail`` < 0), ``-trail`` before the first one;
- a white space between them is no sound: the border is at its peak.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from espnet_cif_hkd.inference.assemble import Span
from espnet_cif_hkd.inference.evidence import Evidence, Floats

# Shortest silence that is a pause, and shortest token, in seconds.
PAUSE = 0.12
SHORTEST = 0.01


@dataclass(frozen=True)
class Timing:
    """Place of the peak in a token.

    Attributes:
        lead: Seconds from the start of a token to its peak.
        trail: Seconds from its peak to its end.
        stream_start: Seconds that a stream adds to the start of a token.
        stream_end: Seconds that a stream adds to its end.
    """

    lead: float = 0.02
    trail: float = 0.12
    stream_start: float = 0.0
    stream_end: float = 0.0

    def of_stream(self, has_ctc: bool) -> "Timing":
        """Return what a stream uses; lead and trail may be those of CTC's peaks."""
        if not has_ctc:
            return self
        return Timing(stream_start=self.stream_start, stream_end=self.stream_end)


def token_spans(
    evidence: Evidence, silent: Sequence[bool], timing: Timing, duration: float
) -> list[Span]:
    """Return start and end of each token in seconds.

    Args:
        evidence: Of the hypothesis.
        silent: Whether a token is no sound, such as a white space, U.
        timing: Of the model.
        duration: Length of the audio in seconds, positive.

    Returns:
        U spans: 0 ≤ start < end ≤ duration; neither starts nor ends decrease.
    """
    if not len(evidence.ids):
        return []
    first, last = peaks(evidence, duration)
    heard = np.flatnonzero(~np.asarray(silent, bool))
    if not len(heard):
        heard = np.arange(len(first))
    starts, ends = np.array(first), np.array(last)
    starts[heard[0]] = first[heard[0]] - timing.lead
    ends[heard[-1]] = last[heard[-1]] + timing.trail
    longest = timing.lead + timing.trail + PAUSE
    for one, after in pairwise(heard):
        distance = first[after] - last[one]
        if distance > longest:
            ends[one], starts[after] = (
                last[one] + timing.trail,
                first[after] - timing.lead,
            )
        elif after - one > 1:
            ends[one] = starts[after] = (first[one + 1] + last[after - 1]) / 2
        else:
            border = _border(last[one], first[after], timing)
            ends[one] = starts[after] = border
        # A white space takes the silence.
        starts[one + 1 : after], ends[one + 1 : after] = ends[one], starts[after]
    return _valid(starts, ends, duration)


def _border(last: float, first: float, timing: Timing) -> float:
    """Border between the end of one peak and the begin of the next, in seconds."""
    if timing.lead < 0:
        return first - timing.lead
    if timing.trail < 0:
        return last + timing.trail
    share = timing.trail / max(timing.lead + timing.trail, 1e-9)
    return last + share * (first - last)


def peaks(evidence: Evidence, duration: float) -> tuple[Floats, Floats]:
    """Centres of the first and of the last frame of each token's peak, in seconds.

    They are from CTC's forced alignment; without CTC, from alpha. With neither or with
    fewer frames than tokens, tokens share the duration equally.

    Returns:
        Two arrays, ``(U,)``.
    """
    count = np.arange(len(evidence.ids))
    if evidence.peaks is not None:
        first, last, _ = evidence.peaks
        return evidence.seconds(first + 0.5), evidence.seconds(last + 0.5)
    if evidence.alpha is not None and evidence.n_frames:
        middle = evidence.seconds(evidence.places(count + 0.5))
    else:
        middle = (count + 0.5) * duration / len(count)
    return middle, middle


def _valid(starts: Floats, ends: Floats, duration: float) -> list[Span]:
    """Change times so that they are in order and in the audio."""
    shortest = min(SHORTEST, duration / 2)
    starts = np.maximum.accumulate(starts.clip(0.0, duration - shortest))
    ends = np.maximum.accumulate(np.maximum(ends, starts + shortest).clip(max=duration))
    return list(zip(starts.tolist(), ends.tolist()))
