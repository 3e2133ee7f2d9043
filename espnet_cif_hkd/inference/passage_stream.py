"""Weights and frames of a stream in, fired vectors of passages out.

The decoder of a stream cannot remember everything. So the stream consists of passages,
each searched from ``<sos>``. A passage ends in a pause, in which the running sum stands
still, if it has enough tokens; then the rest of the sum fires or is dropped, as at the
end of an utterance. Without a pause it ends at a limit, and the sum runs on.

This module needs neither torch nor ESPnet, so that exported models use it as well.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from espnet_cif_hkd.inference.evidence import Floats

# The sum stands still in a frame with less weight than this.
STILL = 0.05
# A firing this close after the end of a frame, in frames, still belongs to the frame.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class PassageLimits:
    """Where the passages of a stream end.

    Attributes:
        pause: Frames in which the sum stands still.
        tokens: Fewest tokens of a passage that ends in a pause.
        limit: Most tokens of a passage.
    """

    pause: int
    tokens: int
    limit: int


@dataclass(frozen=True)
class Place:
    """Where a vector was fired, in frames since the beginning; frame t is [t, t + 1].

    Attributes:
        begin: Where the one before fired.
        middle: Where half of its weight was reached.
        end: Where it fired.
    """

    begin: float
    middle: float
    end: float


@dataclass(frozen=True)
class Fired:
    """Vectors of one passage.

    Attributes:
        vectors: ``(L, D)``; L may be 0.
        places: Of the vectors.
        near: Frames around their firings, of one utterance; None without
            ``frame_window`` or without a vector.
        ends: Whether the passage ends with them.
        is_inside: Whether it ends at the limit, possibly inside of a word.
    """

    vectors: Any
    places: list[Place]
    near: Any
    ends: bool
    is_inside: bool = False


class Firing(Protocol):
    """Integrate-and-fire of one stream, in torch or in numpy."""

    @property
    def total(self) -> float:
        """The running sum."""

    @property
    def n_frames(self) -> int:
        """Frames so far."""

    def fire(self, hs: Any, alpha: Floats, last: bool) -> list[tuple[Any, float]]:
        """Integrate the next frames ``(T, D)`` with their weights ``(T,)`` float64.

        Returns:
            Each vector ``(D,)`` that fires, and when, in frames of the stream. With
            ``last``, the tail may fire.
        """

    def restart(self) -> None:
        """Drop the rest of the sum; frames are counted on."""

    def stack(self, vectors: list[Any]) -> Any:
        """Join vectors to ``(L, D)``."""


class Surroundings(Protocol):
    """The encoder frames that ``frame_window`` may see."""

    window: int

    @property
    def first(self) -> int:
        """Number of the first frame that is kept."""

    @property
    def end(self) -> int:
        """Number of frames so far."""

    def around(self, ends: list[float]) -> Any:
        """The frames around firings at these times in frames."""

    def forget(self, first: int) -> None:
        """Drop the frames before this one."""


class PassageStream:
    """Divides what fires into passages.

    Args:
        firing: Before the first frame.
        near: Of a decoder with ``frame_window``; else None.
        limits: Of passages.
    """

    def __init__(
        self, firing: Firing, near: Surroundings | None, limits: PassageLimits
    ) -> None:
        self._fired, self._near, self._limits = firing, near, limits
        self._still = 0  # frames in which the sum stands still now
        self._count = 0  # tokens of the passage
        self._before = 0.0  # where the last token fired
        self._middles: deque[float] = deque()
        # A vector and its place; True or False ends a passage: is_inside
        self._queue: deque[tuple[Any, Place] | bool] = deque()

    def integrate(self, hs: Any, alpha: Floats, last: bool) -> list[Fired]:
        """Add frames with their weights.

        Args:
            hs: ``(T, D)``; T may be 0.
            alpha: ``(T,)`` float64.
            last: Whether the stream ends with them.

        Returns:
            Vectors, passage by passage. With ``last``, the last passage ends.
        """
        begin = 0
        for place, weight in enumerate(alpha.tolist(), start=1):
            self._still = self._still + 1 if weight < STILL else 0
            if self._still == self._limits.pause:
                self._fire(hs[begin:place], alpha[begin:place])
                begin = place
                if self._count >= self._limits.tokens:
                    self._pause(hs[:0])
        self._fire(hs[begin:], alpha[begin:], last)
        if last:
            self._queue.append(False)
        return self._released(last)

    def _fire(self, hs: Any, alpha: Floats, last: bool = False) -> None:
        self._find_middles(alpha)
        self._add(self._fired.fire(hs, alpha, last))

    def _pause(self, none: Any) -> None:
        """End the passage as an utterance ends; a tail fired when the pause began."""
        tail = self._fired.fire(none, np.zeros(0), True)
        self._add(tail, latest=self._fired.n_frames - self._limits.pause)
        if self._count:
            self._queue.append(False)
        self._fired.restart()
        self._count = 0
        self._middles.clear()

    def _add(self, fired: list[tuple[Any, float]], latest: float = np.inf) -> None:
        for vector, time in fired:
            end = max(self._before, min(time, latest))
            middle = self._middles.popleft() if self._middles else end
            place = Place(self._before, min(max(middle, self._before), end), end)
            self._queue.append((vector, place))
            self._before = end
            self._count += 1
            if self._count == self._limits.limit:
                self._queue.append(True)
                self._count = 0

    def _find_middles(self, alpha: Floats) -> None:
        """Where the running sum passes 1/2, 3/2, …"""
        total = self._fired.total
        running = np.append(total, total + np.cumsum(alpha))
        if not np.isfinite(running).all():
            return
        first, after = np.floor(running[[0, -1]] + 0.5)
        for target in np.arange(first, after) + 0.5:
            frame = int(np.searchsorted(running, target))
            inside = (running[frame] - target) / alpha[frame - 1]
            self._middles.append(self._fired.n_frames + frame - inside)

    def _released(self, last: bool) -> list[Fired]:
        """Take the vectors whose surrounding frames are known."""
        passages: list[Fired] = []
        ready: list[tuple[Any, Place]] = []
        while self._queue:
            item = self._queue[0]
            if isinstance(item, bool):
                passages.append(
                    replace(self._passage(ready), ends=True, is_inside=item)
                )
                ready = []
            elif last or self._is_surrounded(item[1]):
                ready.append(item)
            else:
                break
            self._queue.popleft()
        if ready:
            passages.append(self._passage(ready))
        self._forget()
        return passages

    def _passage(self, ready: list[tuple[Any, Place]]) -> Fired:
        vectors = self._fired.stack([vector for vector, _ in ready])
        places, near = [place for _, place in ready], None
        if self._near is not None and ready:
            near = self._near.around([place.end for place in places])
        return Fired(vectors, places, near, ends=False)

    def _is_surrounded(self, place: Place) -> bool:
        near = self._near
        return near is None or frame_of(place.end) + near.window + 1 <= near.end

    def _forget(self) -> None:
        """Drop the frames that no later vector sees."""
        if self._near is None:
            return
        waiting = [
            frame_of(item[1].end) for item in self._queue if not isinstance(item, bool)
        ]
        # A tail may fire at the beginning of a pause.
        oldest = self._fired.n_frames - 1 - self._limits.pause
        self._near.forget(min([oldest, *waiting]) - self._near.window)


def frame_of(time: Any) -> Any:
    """The frame in which a vector fires at a time in frames."""
    return np.maximum(0, np.ceil(np.asarray(time) - _ROUNDING).astype(int) - 1)
