"""How many frames encoders make, by arithmetic alone.

Convolutions over time and pooling are windows: so many frames wide, moved by so many.
None of them pads, so that the frames of an utterance follow from its own length. The
recipe engine reckons with the same rules before a training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Windows = tuple[tuple[int, int], ...]
Frames = TypeVar("Frames", int, "torch.Tensor")

PAPER_INPUT = "conv2d_stride2"
PAPER_POOLING = (5, 10)
# What cif_conformer does after each of its pooling_layers.
POOLING: Windows = ((2, 2),)
# (width, stride) of the convolutions of each input layer: the paper's, and those of
# ESPnet's encoders.
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
    """Frames that come out of windows applied one after the other.

    Args:
        frames: How many go in; an int, or an integer tensor of any shape.
        windows: Width and stride of each.

    Returns:
        The like of ``frames``; zero or less where they are too few for a window.
    """
    for width, stride in windows:
        frames = (frames - width) // stride + 1
    return frames


def fewest_frames(windows: Windows) -> int:
    """The shortest input of which one frame is left."""
    frames = 1
    for width, stride in reversed(windows):
        frames = (frames - 1) * stride + width
    return frames
