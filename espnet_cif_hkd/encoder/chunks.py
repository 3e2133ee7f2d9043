"""Chunks of encoder frames: the options, the draw in training, and the masks.

A chunk is a number of frames of the encoder's output. Before a pooling it has twice as
many frames, so its ends are the same times in all blocks. A frame sees its own chunk
and earlier ones, never a later chunk.

Source: dynamic chunk training is that of arXiv 2012.05481 (U2), the convolution inside
chunks that of arXiv 2304.09325.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from espnet_cif_hkd.errors import UserError

FULL = 0  # a chunk size: no chunks, all frames see each other
DYNAMIC = "dynamic"
# U2: half of the batches have full context, the others 1 to 25 frames a chunk.
_DYNAMIC_CHOICES = (*range(1, 26), *([FULL] * 25))
# No utterance needs longer chunks; a number above is probably in milliseconds.
_LONGEST = 500


@dataclass(frozen=True)
class SectionChunks:
    """The chunks of one section of the encoder, where the frame rate is constant.

    Attributes:
        size: Frames of a chunk in this section.
        visible: True where a frame (dimension 1) sees another (dimension 2); both are
            valid. ``(B, T, T)`` bool.
    """

    size: int
    visible: torch.Tensor


@dataclass(frozen=True)
class ChunkOptions:
    """The checked options of :class:`CIFConformerEncoder` about chunks.

    Attributes:
        training: Chunk sizes of training in output frames; one is drawn for each batch.
        left: Past chunks that attention sees; -1: all.
    """

    training: tuple[int, ...]
    left: int

    def draw(self) -> int:
        """Return the chunk size of a training batch; uses torch's random numbers."""
        if len(self.training) == 1:
            return self.training[0]
        return _draw(self.training)

    def section(self, size: int, mask: torch.Tensor) -> SectionChunks:
        """Build the mask of a section.

        Args:
            size: Frames of a chunk in this section.
            mask: True at valid frames, ``(B, 1, T)`` bool.
        """
        chunk = torch.arange(mask.size(2), device=mask.device) // size
        distance = chunk[:, None] - chunk[None, :]  # (T, T), chunks into the past
        visible = distance >= 0
        if self.left >= 0:
            visible = visible & (distance <= self.left)
        return SectionChunks(size, visible & mask)


# A draw in a graph would be the same in all batches.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _draw(sizes: tuple[int, ...]) -> int:
    return sizes[int(torch.randint(len(sizes), ()))]


def check_chunks(
    chunk_size: int | str | Sequence[int] | None,
    left_chunks: int,
    decoding_chunk_size: int | None,
) -> tuple[ChunkOptions, int]:
    """Check the options about chunks.

    Args:
        chunk_size: See :class:`CIFConformerEncoder`.
        left_chunks: As above.
        decoding_chunk_size: As above.

    Returns:
        The options, and the chunk size outside of training.

    Raises:
        UserError: If a value does not fit.
    """
    sizes = _training_sizes(chunk_size)
    decoding = decoding_chunk_size
    if decoding is None:
        decoding = sizes[0] if len(sizes) == 1 else FULL
    _check_size("decoding_chunk_size", decoding)
    if type(left_chunks) is not int or left_chunks < -1:
        raise UserError(
            f"encoder_conf: left_chunks {left_chunks!r} must be an integer >= 0, the "
            "number of past chunks that attention sees, or -1 for all"
        )
    if left_chunks != -1 and not any((*sizes, decoding)):
        raise UserError(
            f"encoder_conf: left_chunks {left_chunks} has no effect without chunks; "
            "set chunk_size, or remove left_chunks"
        )
    return ChunkOptions(sizes, left_chunks), decoding


def _training_sizes(chunk_size: Any) -> tuple[int, ...]:
    if chunk_size is None:
        return (FULL,)
    if chunk_size == DYNAMIC:
        return _DYNAMIC_CHOICES
    if not isinstance(chunk_size, list | tuple):
        _check_size("chunk_size", chunk_size)
        return (chunk_size,)
    if not chunk_size:
        raise UserError(
            "encoder_conf: chunk_size [] must contain one or more numbers of frames, "
            "such as [0, 8, 16]; 0 is full context"
        )
    for size in chunk_size:
        _check_size("chunk_size", size)
    return tuple(chunk_size)


def _check_size(name: str, size: Any) -> None:
    if type(size) is not int or size < 0:
        allowed = "null, 0 (full context), or a number of encoder frames >= 1"
        if name == "chunk_size":
            allowed += f", a list of these, or {DYNAMIC}"
        raise UserError(f"encoder_conf: {name} {size!r} must be {allowed}")
    if size > _LONGEST:
        raise UserError(
            f"encoder_conf: {name} {size} is more than {_LONGEST} frames; the unit is "
            "frames of the encoder's output, not milliseconds; 0 is full context"
        )
