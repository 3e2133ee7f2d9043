"""Times of frames and of firings, in seconds."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class FrameTimes:
    """A regular grid of frames: frame n is centred at ``offset + n · stride``.

    Firing positions (:attr:`espnet_cif_hkd.cif.CIFOutput.firing_times`) are in frames;
    there frame n spans ``[n, n + 1]``. In seconds it spans ``offset + (n ± 1/2) ·
    stride``.

    Attributes:
        offset: Centre of frame 0 in seconds.
        stride: Seconds from one frame to the next.

    Example:
        >>> import torch
        >>> frames = FrameTimes(offset=0.03, stride=0.04)  # conv2d, hop of 10 ms
        >>> frames.centres(torch.tensor([0, 1, 10]))
        tensor([0.0300, 0.0700, 0.4300], dtype=torch.float64)
        >>> frames.seconds(torch.tensor([0.5, 2.0, 11.0]), duration=0.45)
        tensor([0.0300, 0.0900, 0.4500], dtype=torch.float64)
    """

    offset: float
    stride: float

    def centres(self, frames: torch.Tensor) -> torch.Tensor:
        """Centres of frames in seconds.

        Args:
            frames: Frame indices, any shape and dtype.

        Returns:
            Seconds, float64, shape of ``frames``.
        """
        return self.offset + frames.double() * self.stride

    def seconds(
        self, positions: torch.Tensor, duration: float | None = None
    ) -> torch.Tensor:
        """Convert positions such as firing times to seconds.

        Args:
            positions: Positions in frames, any shape and dtype; 0.5 is the centre of
                frame 0.
            duration: Length of the audio in seconds; times are limited to it.

        Returns:
            Seconds, not negative, float64, shape of ``positions``.
        """
        return self.centres(positions - 0.5).clamp(min=0.0, max=duration)
