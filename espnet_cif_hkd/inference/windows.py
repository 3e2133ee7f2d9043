"""Encoder frames of long audio, from windows that overlap.

A window sees ``context`` seconds on each side of the frames that are kept of it. The
kept frames follow each other without a gap and lie on one grid: frame n of the audio is
centred at ``times.offset + n · times.stride``, whatever its window. So everything after
the encoder, such as the running sum of CIF, does not see where windows meet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.speech import Samples
from espnet_cif_hkd.plugin.compat import TooShortUttError

# Samples between two times in seconds, at the sampling rate of the model.
Read = Callable[[float, float], Samples]
# Frames of a window and their weights, ``(T, D)`` and ``(T,)``.
Encode = Callable[[Samples], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Window:
    """The frames that are kept of a window.

    Attributes:
        hidden: Encoder frames, ``(T, D)``.
        weights: Of the frames, ``(T,)``.
        after: Number in the audio of the frame after them.
        last: Whether the audio ends with this window.
    """

    hidden: Tensor
    weights: Tensor
    after: int
    last: bool


def check_windows(window: float, context: float, times: FrameTimes) -> None:
    """Check lengths of windows in seconds.

    Raises:
        UserError: A window keeps no frame.
    """
    if context < 0 or window < 2 * context + 10 * times.stride:
        raise UserError(
            f"a window of {window:g} s with {context:g} s of context on each side "
            "keeps too few frames; use such as window 24 and context 3"
        )


def encode_windows(
    encode: Encode,
    read: Read,
    duration: float,
    times: FrameTimes,
    window: float,
    context: float,
    first: int = 0,
) -> Iterator[Window]:
    """Encode long audio.

    Audio that is not longer than a window is encoded as one utterance. The last window
    has the audio up to the end; it is never shorter than the context of both sides.

    Args:
        encode: Returns the frames of samples ``(S,)`` and their weights.
        read: Returns the samples between two times.
        duration: Length of the audio in seconds.
        times: Of the encoder frames of an utterance.
        window: Seconds of a window, context included.
        context: Seconds on each side of a window whose frames are dropped.
        first: Number of the first frame to keep, as ``after`` of the window before.

    Raises:
        UserError: A window keeps no frame, or the audio is shorter than ``duration``.
    """
    check_windows(window, context, times)
    n_context = round(context / times.stride)
    last = False
    while not last:
        begin = max(0, first - n_context)
        start = begin * times.stride
        last = duration <= start + window
        samples = read(start, duration if last else start + window)
        try:
            hidden, weights = encode(samples)
        except TooShortUttError:  # possible for the only window
            return
        keep = slice(first - begin, len(hidden) if last else len(hidden) - n_context)
        if not last and keep.stop <= keep.start:
            raise UserError(
                f"the audio ends before {start + window:.2f} s, but its duration is "
                f"given as {duration:.2f} s"
            )
        first = begin + max(keep.stop, keep.start)
        # Copies, so that the window is freed.
        yield Window(hidden[keep].clone(), weights[keep].clone(), first, last)


def no_frames(size: int) -> tuple[Tensor, Tensor]:
    """Frames and weights without an entry, ``(0, size)`` and ``(0,)``."""
    return torch.zeros(0, size), torch.zeros(0)
