"""Borders between Chinese syllables, at the quietest place nearby.

A Mandarin syllable begins with its consonant, and no stop ends it: audio between two
syllables is quieter than within them. So a border moves to the quietest place within
one encoder frame, the distance up to which CTC does not know it. The closure of a stop
can also be *within* an English word, so borders of other scripts stay where they are.

This module needs neither torch nor ESPnet, so that exported models use it as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.inference.assemble import Span, is_han
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


@dataclass(frozen=True)
class Sound:
    """Audio of a passage, which is read when its loudness is needed.

    Attributes:
        read: Returns the samples, ``(S,)``, or ``(S, C)`` with C channels.
        rate: Sampling rate in Hz.
        begin: Time of the first sample in seconds.
    """

    read: Callable[[], Any]
    rate: int
    begin: float = 0.0

    @cached_property
    def level(self) -> tuple[Floats, Floats]:
        """Middle of each window in seconds, and its level in dB, ``(N,)`` each."""
        hop, window = max(1, round(_HOP * self.rate)), round(_WINDOW * self.rate)
        level = loudness(np.asarray(self.read()), window, hop)
        middle = (np.arange(len(level)) * hop + window / 2) / self.rate
        return self.begin + middle, level


def quiet_borders(
    spans: Sequence[Span], pieces: Sequence[str], sound: Sound, reach: float
) -> list[Span]:
    """Move borders between two Chinese characters to the quietest place nearby.

    Args:
        spans: Start and end of each token in seconds, U.
        pieces: Text of each token, U.
        sound: It is read only if there is such a border.
        reach: Largest distance of a move in seconds.

    Returns:
        U spans: 0 ≤ start < end as in ``spans``; neither starts nor ends decrease. Only
        ends that are the start of the next token change.

    Example:
        >>> import numpy as np
        >>> samples = np.ones(8000)
        >>> samples[3200:3600] = 0.0  # 0.2 s to 0.225 s
        >>> sound = Sound(lambda: samples, 16000)
        >>> quiet_borders([(0.0, 0.25), (0.25, 0.5)], "你好", sound, 0.08)
        [(0.0, 0.2125), (0.2125, 0.5)]
    """
    starts, ends = [one for one, _ in spans], [one for _, one in spans]
    for n in range(len(spans) - 1):
        touch = ends[n] == starts[n + 1]
        if not (touch and is_han(pieces[n][-1:]) and is_han(pieces[n + 1][:1])):
            continue
        times, level = sound.level
        low = max(ends[n] - reach, starts[n] + SHORTEST)
        high = min(ends[n] + reach, ends[n + 1] - SHORTEST)
        first, last = np.searchsorted(times, [low, high])
        if first < last:
            place = float(times[first + level[first:last].argmin()])
            ends[n] = starts[n + 1] = place
    return list(zip(starts, ends))
