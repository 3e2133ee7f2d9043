"""Number and position of the frames of an encoder, computed without torch.

Convolutions over time and pooling are windows of a width and a stride in frames. None
of them pads, so the number of frames of an utterance depends only on its own length.
The recipe engine uses the same rules before a training.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Windows = tuple[tuple[int, int], ...]
Frames = TypeVar("Frames", int, "torch.Tensor")

PAPER_INPUT = "conv2d_stride2"
PAPER_POOLING = (5, 10)
# What cif_conformer does after each of its pooling_layers.
POOLING: Windows = ((2, 2),)
# (width, stride) of the convolutions of each input layer: the paper's and ESPnet's.
INPUT_WINDOWS: dict[str | None, Windows] = {
    PAPER_INPUT: ((3, 2),),
    None: (),
    "linear": (),
    "embed": (),
    "conv1d1": ((3, 1), (3, 1)),
    "conv1d2": ((3, 1), (3, 2)),
    "conv1d3": ((3, 1), (5, 3)),
    "conv2d": ((3, 2), (3, 2)),
    "conv2d1": ((3, 1), (3, 1)),
    "conv2d2": ((3, 2), (3, 1)),
    "conv2d6": ((3, 2), (5, 3)),
    "conv2d8": ((3, 2), (3, 2), (3, 2)),
}


def frames_after(frames: Frames, windows: Windows) -> Frames:
    """Number of frames after a sequence of windows.

    Args:
        frames: Number of input frames; an int, or an integer tensor of any shape.
        windows: Width and stride of each window, in order.

    Returns:
        The same type as ``frames``; zero or less for too few frames.
    """
    for width, stride in windows:
        frames = (frames - width) // stride + 1
    return frames


def centre_of_first(windows: Windows) -> tuple[float, int]:
    """Position of frame 0 after a sequence of windows, and the stride.

    Frame n is centred at ``position + n · stride`` input frames.

    Example:
        >>> centre_of_first(INPUT_WINDOWS["conv2d"])
        (3.0, 4)
    """
    position, stride = 0.0, 1
    for width, step in windows:
        position += stride * (width - 1) / 2
        stride *= step
    return position, stride


def fewest_frames(windows: Windows) -> int:
    """Number of input frames that give one output frame."""
    frames = 1
    for width, stride in reversed(windows):
        frames = (frames - 1) * stride + width
    return frames


def frames_needed(tokens: list[int]) -> int:
    """Return the frames that CTC needs: one per token, one between equal tokens.

    Example:
        >>> frames_needed([3, 3, 4])
        4
    """
    return len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))
