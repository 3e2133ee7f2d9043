"""What a model knows about the tokens of one hypothesis.

This module needs neither torch nor ESPnet, so that exported models use it as well.

Shapes and names
----------------
===  =====================================================================
T    encoder frames
U    tokens of the hypothesis, without ``<eos>``
V    vocabulary
===  =====================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Evidence:
    """Numbers for times and confidences of one hypothesis.

    Attributes:
        ids: The tokens.
        n_frames: T.
        offset: Centre of frame 0 in seconds.
        stride: Seconds from one frame to the next.
        alpha: Weight of each frame, ``(T,)``; None: no CIF.
        ctc: CTC's log-probabilities, ``(T, V)``; None: no CTC.
        logp: The decoder's log-probability of each token after the tokens before it,
            ``(U,)``; None: unknown.
    """

    ids: Sequence[int]
    n_frames: int
    offset: float
    stride: float
    alpha: Floats | None = None
    ctc: Floats | None = None
    logp: Floats | None = None

    @cached_property
    def path(self) -> Integers | None:
        """Token of each frame on CTC's best path, ``(T,)``; -1: blank.

        None without CTC, without tokens and with too few frames.
        """
        if self.ctc is None or not len(self.ids):
            return None
        return best_path(self.ctc, self.ids)

    @cached_property
    def peaks(self) -> tuple[Integers, Integers, Floats] | None:
        """First, last and mean frame of each token on :attr:`path`, ``(U,)`` each."""
        if self.path is None:
            return None
        frames = np.flatnonzero(self.path >= 0)
        owners = self.path[frames]
        first = np.full(len(self.ids), len(self.path))
        last = np.zeros(len(self.ids), np.int64)
        np.minimum.at(first, owners, frames)
        np.maximum.at(last, owners, frames)
        return first, last, np.bincount(owners, frames) / np.bincount(owners)

    def seconds(self, positions: Any) -> Floats:
        """Convert positions in frames to seconds; 0.5 is the centre of frame 0."""
        return self.offset + (np.asarray(positions, np.float64) - 0.5) * self.stride

    @cached_property
    def running_sum(self) -> Floats | None:
        """Sum of alpha at the frame borders, ``(T + 1,)``; None without CIF."""
        if self.alpha is None:
            return None
        return np.append(0.0, np.cumsum(self.alpha, dtype=np.float64))

    def places(self, sums: Any) -> Floats:
        """Positions in frames at which the sum of alpha reaches values.

        A value that the sum keeps for a while is reached at the beginning of this time;
        one that it does not reach, at the end of the last frame.
        """
        total = self.running_sum
        assert total is not None, "places() needs alpha"
        after = np.searchsorted(total, sums).clip(1, len(total) - 1)
        step = np.maximum(total[after] - total[after - 1], 1e-12)
        return after - 1 + ((sums - total[after - 1]) / step).clip(0.0, 1.0)


def best_path(logp: Floats, ids: Sequence[int], blank: int = 0) -> Integers | None:
    """CTC's forced alignment of one utterance, by Viterbi's algorithm.

    As :func:`espnet_cif_hkd.losses.ctc_alignment.ctc_alignment`, without torch.

    Args:
        logp: Log-probabilities, ``(T, V)``.
        ids: Tokens, at least one.
        blank: Index of the blank.

    Returns:
        Place of the token of each frame, ``(T,)``; -1: blank. None if there are too few
        frames for the tokens.

    Example:
        >>> import numpy as np
        >>> logp = np.log(np.eye(3)[[0, 2, 2, 0, 1]] + 1e-3)
        >>> best_path(logp, [2, 1]).tolist()
        [-1, 0, 0, -1, 1]
    """
    states = np.full(2 * len(ids) + 1, blank)
    states[1::2] = ids
    scores = logp[:, states].astype(np.float64)  # (T, S)
    # From the state two before: only into a token that differs from the last one.
    jump = np.full(len(states), -np.inf)
    jump[3::2][np.diff(states[1::2]) != 0] = 0.0
    # Two columns without a path before the first state.
    best = np.full((len(scores) + 1, len(states) + 2), -np.inf)
    if len(scores):
        best[1, 2:4] = scores[0, :2]
    for frame in range(1, len(scores)):
        old, new = best[frame], best[frame + 1, 2:]
        np.add(old[:-2], jump, out=new)
        np.maximum(new, old[2:], out=new)
        np.maximum(new, old[1:-1], out=new)
        new += scores[frame]
    # How many states each frame goes forward.
    stay, one, two = best[1:-1, 2:], best[1:-1, 1:-1], best[1:-1, :-2] + jump
    steps = np.where(two > np.maximum(stay, one), 2, one > stay)
    state = len(states) - (1 if best[-1, -1] > best[-1, -2] else 2)
    if best[-1, 2 + state] == -np.inf:
        return None
    path = [state]
    for row in reversed(steps.tolist()):
        state -= row[state]
        path.append(state)
    found = np.array(path[::-1])
    return np.where(found % 2 == 1, found // 2, -1)
