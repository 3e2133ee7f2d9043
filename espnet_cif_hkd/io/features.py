"""Log-mel features in numpy, for exported models and their graphs.

This module needs neither torch nor ESPnet.

All frontends that can be exported are the same chain: frames of samples, a linear map
of each frame (mean removal, pre-emphasis, window, Fourier transform), power, mel bands,
logarithm, and possibly several neighbouring frames as one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FeatureSpec:
    """Parameters of log-mel features.

    Attributes:
        rate: Sampling rate in Hz.
        hop: Samples from one frame to the next.
        window: Factors of the samples of a frame, ``(N,)``.
        n_fft: Length of the Fourier transform, at least N.
        mel: Weights of the bands, ``(n_fft // 2 + 1, M)``.
        pad: Samples that are mirrored at both ends.
        scale: Factor of the samples.
        mean: Whether the mean of a frame is subtracted.
        preemphasis: Share of the sample before that is subtracted.
        floor: Lower limit of a band's energy.
        log: Factor of the natural logarithm.
        stack: Frames that are joined to one.
        skip: Frames from one joined frame to the next.
    """

    rate: int
    hop: int
    window: Floats
    n_fft: int
    mel: Floats
    pad: int = 0
    scale: float = 1.0
    mean: bool = False
    preemphasis: float = 0.0
    floor: float = 1e-10
    log: float = 1.0
    stack: int = 1
    skip: int = 1

    @property
    def width(self) -> int:
        """Size of a feature frame."""
        return int(self.mel.shape[1]) * self.stack

    @property
    def joins(self) -> bool:
        """Whether frames are joined, or left out."""
        return self.stack > 1 or self.skip > 1

    def n_frames(self, n_samples: int) -> int:
        """Number of feature frames of a recording, at least 0."""
        frames = (n_samples + 2 * self.pad - self.reach) // self.hop + 1
        if self.pad and n_samples <= self.pad:  # too short to be mirrored
            return 0
        return -(-max(0, frames) // self.skip)

    @property
    def reach(self) -> int:
        """Samples of a frame; of a centred one with the zeros around its window."""
        return self.n_fft if self.pad else len(self.window)

    def spectrum(self, frames: Floats) -> npt.NDArray[np.complexfloating[Any, Any]]:
        """The linear map: frames ``(T, reach)`` to spectra ``(T, n_fft // 2 + 1)``."""
        frames = np.asarray(frames, np.float64) * self.scale
        before = (self.n_fft - len(self.window)) // 2 if self.pad else 0
        frames = frames[:, before : before + len(self.window)]
        if self.mean:
            frames = frames - frames.mean(axis=1, keepdims=True)
        if self.preemphasis:
            earlier = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
            frames = frames - self.preemphasis * earlier
        return np.fft.rfft(frames * self.window, self.n_fft)

    def basis(self) -> Floats:
        """The linear map as a matrix: real and imaginary parts, ``(reach, 2 F)``."""
        spectra = self.spectrum(np.eye(self.reach))
        return np.concatenate([spectra.real, spectra.imag], axis=1)

    def __call__(self, samples: Floats) -> Floats:
        """Compute the features of one utterance.

        Args:
            samples: ``(S,)``, full scale is 1.

        Returns:
            ``(T, width)`` float32.
        """
        count = self.n_frames(len(samples))
        if count < 1:
            return np.zeros((0, self.width), np.float32)
        padded = np.pad(np.asarray(samples, np.float64), self.pad, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.reach)
        blocks = []
        frames = frames[:: self.hop]
        for first in range(0, len(frames), 1000):
            spectra = self.spectrum(frames[first : first + 1000])
            energy = (spectra.real**2 + spectra.imag**2) @ self.mel
            blocks.append(np.log(np.maximum(energy, self.floor)) * self.log)
        return self._joined(np.concatenate(blocks)).astype(np.float32)

    def _joined(self, frames: Floats) -> Floats:
        if not self.joins:
            return frames
        return frames[self.places(len(frames))].reshape(-1, self.width)

    def places(self, n_frames: int) -> npt.NDArray[np.int64]:
        """Frames of each joined frame, ``(T, stack)``; the ends are repeated."""
        first = np.arange(0, n_frames, self.skip)[:, None] - (self.stack - 1) // 2
        return (first + np.arange(self.stack)).clip(0, max(n_frames - 1, 0))

    def save(self, path: Path) -> None:
        """Write all parameters to an ``npz`` file."""
        values: dict[str, Any] = vars(self)
        np.savez(path, **values)

    @classmethod
    def load(cls, path: Path) -> "FeatureSpec":
        """Read the parameters that :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            values = {name: stored[name] for name in stored.files}
        return cls(**{k: v if v.ndim else v.item() for k, v in values.items()})
