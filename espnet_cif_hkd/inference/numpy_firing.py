"""Integrate-and-fire for a stream in numpy, for exported models.

Names of shapes: as in :mod:`espnet_cif_hkd.inference.onnx_stream`; L tokens that fire.
"""

from typing import Any

import numpy as np

from espnet_cif_hkd.inference.evidence import Floats
from espnet_cif_hkd.inference.onnx_folder import Array, Arrays
from espnet_cif_hkd.inference.passage_stream import frame_of

# As in espnet_cif_hkd.cif.op, which needs torch.
_ROUNDING = 1e-6
_TAIL_GUARD = 1e-10


class NumpyFiring:
    """As :func:`espnet_cif_hkd.cif.streaming.fire_piece`, for one stream.

    Args:
        size: D.
        tail_threshold: Of the decoder.

    Attributes:
        total: Running sum of the weights.
        n_frames: Frames so far.
        partial: Weighted sum of the frames of the incomplete token, ``(D,)``.

    Source: arXiv 1905.11235, the CIF module.

    Example:
        >>> import numpy as np
        >>> firing = NumpyFiring(1, 0.5)
        >>> [(float(vector[0]), time) for vector, time in firing.fire(
        ...     np.ones((3, 1), np.float32), np.full(3, 0.5), False)]
        [(1.0, 2.0)]
        >>> firing.total, firing.partial.tolist()
        (1.5, [0.5])
    """

    def __init__(self, size: int, tail_threshold: float | None) -> None:
        self._threshold = tail_threshold
        self.total, self.n_frames = 0.0, 0
        self.partial: Array = np.zeros(size, np.float32)

    def fire(self, hs: Array, alpha: Floats, last: bool) -> list[tuple[Array, float]]:
        """Integrate the next frames ``(T, D)`` with their weights ``(T,)`` float64.

        Returns:
            Each vector ``(D,)`` that fires, and when, in frames of the stream. With
            ``last``, the tail may fire. After a weight that is not finite, nothing
            fires.
        """
        before = _integer_part(self.total)
        running = np.append(self.total, alpha).cumsum()
        self.total = float(running[-1])
        n_full = _integer_part(self.total + _ROUNDING if last else self.total)
        n_new = max(0, n_full - before)
        cum = running - before  # (1 + T,)
        # (1 + T, L + 1): the share of each token that the frames so far fill
        filled = (cum[:, None] - np.arange(n_new + 1)).clip(0.0, 1.0)
        shares = np.diff(filled, axis=0).astype(np.float32)
        sums = shares.T @ hs
        sums[0] += self.partial
        self.partial = sums[n_new]
        vectors = list(sums[:n_new])
        rest = self.total - n_full
        if last and self._threshold is not None and self._threshold < rest < np.inf:
            vectors.append(self.partial / np.float32(rest + _TAIL_GUARD))
        ends = np.arange(1, len(vectors) + 1)
        times = self.n_frames + _places(cum, ends)
        self.n_frames += len(alpha)
        return list(zip(vectors, times.tolist(), strict=True))

    def restart(self) -> None:
        """Drop the rest of the sum; frames are counted on."""
        self.total, self.partial = 0.0, np.zeros_like(self.partial)

    def stack(self, vectors: list[Array]) -> Array:
        """Join vectors to ``(L, D)``."""
        return np.reshape(vectors, (-1, len(self.partial)))


class NumpyFrames:
    """Keys and values of the frames around firings, for ``frame_window``.

    Args:
        window: Frames on both sides of a firing.
        size: D.

    Attributes:
        first: Number of the first frame that is kept.
    """

    def __init__(self, window: int, size: int) -> None:
        self.window, self.first = window, 0
        self._keys: Array = np.zeros((0, size), np.float32)
        self._values = self._keys

    @property
    def end(self) -> int:
        """Number of frames so far."""
        return self.first + len(self._keys)

    @property
    def state_bytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes

    def add(self, keys: Array, values: Array) -> None:
        """Add the keys and values of frames, ``(T, D)`` each."""
        self._keys = np.concatenate([self._keys, keys])
        self._values = np.concatenate([self._values, values])

    def around(self, ends: list[float]) -> Arrays:
        """Keys and values ``(L, K, D)``, and whether they exist ``(L, K)``."""
        last = len(self._keys) - 1
        middle = (frame_of(ends) - self.first).clip(0, last)
        places = middle[:, None] + np.arange(-self.window, self.window + 1)
        chosen = places.clip(0, last)
        return {
            "keys": self._keys[chosen],
            "values": self._values[chosen],
            "allowed": (places >= 0) & (places <= last),
        }

    def forget(self, first: int) -> None:
        """Drop the frames before this one."""
        count = max(0, first - self.first)
        self._keys, self._values = (
            self._keys[count:].copy(),
            self._values[count:].copy(),
        )
        self.first += count


def _integer_part(total: float) -> int:
    """Floor; 0 for NaN and infinity, which fire nothing."""
    return int(np.floor(total)) if np.isfinite(total) else 0


def _places(cum: Floats, ends: Any) -> Floats:
    """Frames at which a running sum ``(1 + T,)`` reaches values, at most T."""
    if len(cum) == 1:
        return np.zeros(len(ends))
    after = np.searchsorted(cum, ends).clip(1, len(cum) - 1)
    step = np.maximum(cum[after] - cum[after - 1], np.finfo(np.float64).tiny)
    return after - 1 + ((ends - cum[after - 1]) / step).clip(0.0, 1.0)
