"""Borders between Chinese syllables, at the quietest place nearby.

A Mandarin syllable begins with its consonant, and no stop ends it: audio between two
syllables is quieter than within them. So a border moves to the quietest place within
one encoder frame, the distance up to which CTC does not know it. The closure of a stop
can also be *within* an English word, so borders of other scripts stay where they are.

This module needs neither torch nor ESPnet, so that exported models use it as well.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.inference.assemble import HAN, Span
from espnet_cif_hkd.inference.evidence import Floats
from espnet_cif_hkd.inference.spans import SHORTEST

# Seconds.
_HOP, _WINDOW = 0.005, 0.025


def loudness(samples: Floats, window: int, hop: int) -> npt.NDArray[np.float64]:
    """Level of each window in dB.

    Args:
        samples: ``(S,)``, or ``(S, C)`` with C channels.
        window: Samples of a window.
        hop: Samples from one window to the next.

    Returns:
        ``(N,)``: window n begins at sample ``n * hop`` and lies within the audio.
    """
    power = np.square(samples, dtype=np.float64)
    if power.ndim > 1:
        power = power.mean(axis=1)
    total = np.append(0.0, power.cumsum())
    begins = np.arange(0, len(power) - window + 1, hop)
    mean = (total[begins + window] - total[begins]) / window
    # A difference of sums can be below 0 by rounding.
    return 10 * np.log10(mean.clip(0.0) + 1e-10)


def syllable_borders(spans: Sequence[Span], pieces: Sequence[str]) -> list[int]:
    """Find borders between two Chinese characters.

    Args:
        spans: Start and end of each token in seconds, U.
        pieces: Text of each token, U.

    Returns:
        Numbers of the tokens before these borders, in order.
    """
    return [
        n
        for n in range(len(spans) - 1)
        if spans[n][1] == spans[n + 1][0]
        and _is_han(pieces[n][-1:])
        and _is_han(pieces[n + 1][:1])
    ]


def quiet_borders(
    spans: Sequence[Span],
    borders: Sequence[int],
    samples: Floats,
    rate: int,
    reach: float,
    begin: float = 0.0,
) -> list[Span]:
    """Move borders to the quietest place nearby.

    Args:
        spans: Start and end of each token in seconds, U.
        borders: Result of :func:`syllable_borders`.
        samples: ``(S,)``, or ``(S, C)`` with C channels.
        rate: Sampling rate in Hz.
        reach: Largest distance of a move in seconds.
        begin: Time of the first sample in seconds.

    Returns:
        U spans: 0 ≤ start < end as in ``spans``; neither starts nor ends decrease.

    Example:
        >>> import numpy as np
        >>> samples = np.ones(8000)
        >>> samples[3200:3600] = 0.0  # 0.2 s to 0.225 s
        >>> quiet_borders([(0.0, 0.25), (0.25, 0.5)], [0], samples, 16000, 0.08)
        [(0.0, 0.2125), (0.2125, 0.5)]
    """
    hop, window = max(1, round(_HOP * rate)), round(_WINDOW * rate)
    level = loudness(samples, window, hop)
    times = begin + (np.arange(len(level)) * hop + window / 2) / rate
    starts, ends = [one for one, _ in spans], [one for _, one in spans]
    for n in borders:
        low = max(ends[n] - reach, starts[n] + SHORTEST)
        high = min(ends[n] + reach, ends[n + 1] - SHORTEST)
        first, last = np.searchsorted(times, [low, high])
        if first < last:
            place = float(times[first + level[first:last].argmin()])
            ends[n] = starts[n + 1] = place
    return list(zip(starts, ends))


def _is_han(char: str) -> bool:
    return bool(char) and any(first <= ord(char) <= last for first, last in HAN)
