"""Where long audio is divided into passages that are searched one after the other.

CIF's weights are near 0 where nobody speaks: there the running sum stands still. They
are a detector of pauses that costs nothing. Without CIF, the probability that CTC's
label is not blank takes their place.

Shapes: T frames, D size of a frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from espnet_cif_hkd.inference.passage_stream import STILL

# Without a pause, the sum must be this close to an integer at a cut.
_NEAR = 0.1


@dataclass(frozen=True)
class Passage:
    """Frames that are searched together.

    Attributes:
        first: Number of the first frame in the audio.
        hidden: ``(T, D)``.
    """

    first: int
    hidden: Tensor


class Divider:
    """Divides frames into passages, as they come.

    A passage ends in a pause, in the middle of its first ``pause`` frames. If it gets
    longer than ``longest`` without one, it ends where the sum stands still longest in
    its second half, and if it never stands still, between two tokens: where the sum is
    near an integer. Silence beyond half of ``pause`` at the beginning of a passage is
    dropped. The result does not depend on how the frames come.

    Args:
        pause: Frames of a pause.
        longest: Most frames of a passage.
        hidden: Frames that are not searched yet, ``(T, D)``.
        weights: Of these frames, ``(T,)``.
        first: Number of the first one in the audio.
        least: A passage with less weight in all is silence, and dropped.
    """

    def __init__(
        self,
        pause: int,
        longest: int,
        hidden: Tensor,
        weights: Tensor,
        first: int = 0,
        least: float = 0.5,
    ) -> None:
        self._pause, self._longest, self._least = max(2, pause), longest, least
        self.hidden, self.weights, self.first = hidden, weights, first

    def push(self, hidden: Tensor, weights: Tensor, last: bool) -> Iterator[Passage]:
        """Add frames; yield the passages that are complete.

        Between two passages, the attributes have what is not searched yet.
        """
        self.hidden = torch.cat([self.hidden.to(hidden), hidden])
        self.weights = torch.cat([self.weights.to(weights), weights])
        while (cut := self._next_cut()) is not None:
            yield from self._take(cut)
        if last:
            yield from self._take(len(self.hidden))

    def _take(self, cut: int) -> Iterator[Passage]:
        passage = Passage(self.first, self.hidden[:cut])
        weight = float(self.weights[:cut].double().sum())
        self.hidden, self.weights = (
            self.hidden[cut:].clone(),
            self.weights[cut:].clone(),
        )
        self.first += cut
        if weight > self._least:
            yield passage

    def _next_cut(self) -> int | None:
        """Frames of the next passage; None: not known yet."""
        still = (self.weights < STILL).cpu().numpy()
        lead = len(still) if still.all() else int(still.argmin())
        if lead > self._pause // 2:
            self._drop(lead - self._pause // 2)
            still = still[lead - self._pause // 2 :]
        for begin, end in _runs(still):
            if begin > self._longest:
                break
            if begin > 0 and end - begin >= self._pause:
                return begin + self._pause // 2
        if len(still) <= self._longest + self._pause:
            return None
        return self._cut_without_pause(still[: self._longest])

    def _drop(self, count: int) -> None:
        self.hidden, self.weights = self.hidden[count:], self.weights[count:]
        self.first += count

    def _cut_without_pause(self, still: npt.NDArray[np.bool_]) -> int:
        half = len(still) // 2
        runs = [(end - begin, begin) for begin, end in _runs(still) if begin >= half]
        if runs:
            length, begin = max(runs)
            return begin + (length + 1) // 2
        weights = self.weights[: len(still)].double().cpu().numpy()
        total = np.cumsum(weights)[half:]  # up to frame half, half + 1, …
        near = np.abs(total - np.round(total))
        # The frames on both sides of the border
        around = weights[half:] + np.append(weights[half + 1 :], np.inf)
        chosen = np.where(near <= max(_NEAR, near[:-1].min()), around, np.inf)
        return half + int(chosen.argmin()) + 1


def _runs(still: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each run of True, ``(T,)`` bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))
