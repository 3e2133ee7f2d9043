"""Encoder frames of a stream in, fired vectors of passages out.

The decoder of a stream cannot remember everything. So the stream consists of passages,
each searched from ``<sos>``. A passage ends in a pause, in which the running sum stands
still, if it has enough tokens; then the rest of the sum fires or is dropped, as at the
end of an utterance. Without a pause it ends at a limit, and the sum runs on.
"""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.predictor import PredictorCache
from espnet_cif_hkd.cif.streaming import FiredPiece, FiringCache, fire_piece
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.frame_attention import NearFrames
from espnet_cif_hkd.inference.passages import STILL

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

    vectors: Tensor
    places: list[Place]
    near: NearFrames | None
    ends: bool
    is_inside: bool = False


class CIFStream:
    """Predictor and firing of a decoder for one stream.

    Vectors equal those of the predictor and of
    :func:`espnet_cif_hkd.cif.integrate_and_fire` for the frames of a passage. A
    predictor that sees later frames waits for them, and so does ``frame_window``.

    Args:
        decoder: In ``eval`` mode.
        limits: Of passages.

    Attributes:
        alpha: Weights of the newest frames, ``(T,)``.
    """

    def __init__(self, decoder: CIFDecoder, limits: PassageLimits) -> None:
        self._decoder, self._limits = decoder, limits
        self.alpha = torch.zeros(0)
        self.predictor: PredictorCache | None = None
        self.firing: FiringCache | None = None
        self._still = 0  # frames in which the sum stands still now
        self._count = 0  # tokens of the passage
        self._before = 0.0  # where the last token fired
        self._middles: deque[float] = deque()
        # A vector and its place; True or False ends a passage: is_inside
        self._queue: deque[tuple[Tensor, Place] | bool] = deque()
        self.frames = torch.zeros(0)  # for frame_window, (1, T, D)
        self._first = 0  # number of the first one

    @torch.no_grad()
    def push(self, hidden: Tensor, last: bool) -> list[Fired]:
        """Add encoder frames.

        Args:
            hidden: ``(1, T, D)``; T may be 0.
            last: Whether the stream ends with them.

        Returns:
            Vectors, passage by passage. With ``last``, the last passage ends.
        """
        self._remember(hidden)
        lengths = torch.tensor([hidden.size(1)])
        hs, alpha, _, self.predictor = self._decoder.predictor.forward_chunk(
            hidden, lengths, self.predictor, last
        )
        self.alpha = alpha[0]
        begin = 0
        for place, weight in enumerate(alpha[0].tolist(), start=1):
            self._still = self._still + 1 if weight < STILL else 0
            if self._still == self._limits.pause:
                self._fire(hs[:, begin:place], alpha[:, begin:place])
                begin = place
                if self._count >= self._limits.tokens:
                    self._pause()
        self._fire(hs[:, begin:], alpha[:, begin:], last)
        if last:
            self._queue.append(False)
        return self._released(last)

    def _fire(self, hs: Tensor, alpha: Tensor, last: bool = False) -> None:
        self._find_middles(alpha[0])
        fired, self.firing = fire_piece(
            hs,
            alpha,
            torch.tensor([hs.size(1)]),
            self.firing,
            last,
            self._decoder.tail_threshold,
        )
        self._add(fired)

    def _pause(self) -> None:
        """End the passage as an utterance ends; a tail fired when the pause began."""
        assert self.firing is not None
        now, size = int(self.firing.n_frames), self.firing.partial.size(1)
        fired, ended = fire_piece(
            self.firing.partial.new_zeros(1, 0, size),
            self.firing.total.new_zeros(1, 0),
            torch.zeros(1, dtype=torch.int64),
            self.firing,
            True,
            self._decoder.tail_threshold,
        )
        self._add(fired, latest=now - self._limits.pause)
        if self._count:
            self._queue.append(False)
        self.firing = replace(
            ended,
            total=torch.zeros_like(ended.total),
            partial=torch.zeros_like(ended.partial),
        )
        self._count = 0
        self._middles.clear()

    def _add(self, fired: FiredPiece, latest: float = np.inf) -> None:
        for vector, time in zip(
            fired.embeddings[0], fired.firing_times[0].tolist(), strict=True
        ):
            end = max(self._before, min(time, latest))
            middle = self._middles.popleft() if self._middles else end
            place = Place(self._before, min(max(middle, self._before), end), end)
            self._queue.append((vector, place))
            self._before = end
            self._count += 1
            if self._count == self._limits.limit:
                self._queue.append(True)
                self._count = 0

    def _find_middles(self, alpha: Tensor) -> None:
        """Where the running sum passes 1/2, 3/2, …"""
        total = 0.0 if self.firing is None else float(self.firing.total)
        begin = 0 if self.firing is None else int(self.firing.n_frames)
        weights = alpha.double().cpu().numpy()
        running = np.append(total, total + np.cumsum(weights))
        if not np.isfinite(running).all():
            return
        first, after = np.floor(running[[0, -1]] + 0.5)
        for target in np.arange(first, after) + 0.5:
            frame = int(np.searchsorted(running, target))
            self._middles.append(
                begin + frame - (running[frame] - target) / weights[frame - 1]
            )

    def _remember(self, hidden: Tensor) -> None:
        if self._decoder.frame_attention is not None:
            known = self.frames if self.frames.dim() == 3 else hidden[:, :0]
            self.frames = torch.cat([known, hidden], dim=1)

    def _released(self, last: bool) -> list[Fired]:
        """Take the vectors whose surrounding frames are known."""
        passages: list[Fired] = []
        ready: list[tuple[Tensor, Place]] = []
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

    def _passage(self, ready: list[tuple[Tensor, Place]]) -> Fired:
        size = self._decoder.output_layer.weight.size(1)
        if not ready:
            return Fired(torch.zeros(0, size), [], None, ends=False)
        vectors = torch.stack([vector for vector, _ in ready])
        places = [place for _, place in ready]
        attention, near = self._decoder.frame_attention, None
        if attention is not None:
            times = torch.tensor(
                [[place.end for place in places]],
                dtype=torch.float64,
                device=vectors.device,
            )
            lengths = torch.tensor([self.frames.size(1)])
            near = attention.near(self.frames, lengths, times - self._first)
        return Fired(vectors, places, near, ends=False)

    def _is_surrounded(self, place: Place) -> bool:
        attention = self._decoder.frame_attention
        if attention is None:
            return True
        after = _frame_of(place) + attention.window + 1
        return after <= self._first + self.frames.size(1)

    def _forget(self) -> None:
        """Drop the frames that no later vector sees."""
        attention = self._decoder.frame_attention
        if attention is None or self.firing is None:
            return
        oldest = int(self.firing.n_frames) - 1
        waiting = [
            _frame_of(item[1]) for item in self._queue if not isinstance(item, bool)
        ]
        # A tail may fire at the beginning of a pause.
        oldest = min([oldest - self._limits.pause, *waiting]) - attention.window
        count = max(0, oldest - self._first)
        self.frames = self.frames[:, count:].clone()
        self._first += count


def _frame_of(place: Place) -> int:
    """The frame in which a vector fires."""
    return max(0, int(np.ceil(place.end - _ROUNDING)) - 1)
