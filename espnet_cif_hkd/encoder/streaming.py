"""``cif_conformer`` for a stream: pieces of features in, frames of complete chunks out.

Shapes and names
----------------
===  ================================================================
B    utterances, which receive their pieces at the same time
T    features of a piece
F    size of a feature frame
N    frames of a chunk at the output of the encoder
S    features from one output frame to the next
===  ================================================================

Chunk c has the output frames c · N to (c + 1) · N - 1. It needs N · S features from
c · N · S, and the features in which the windows of its last frames end; they belong to
the next chunk, too. The cache keeps the features of the incomplete chunk, and for each
block the keys, values and convolution input of earlier chunks. All are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from espnet_cif_hkd.encoder.block import BlockCache, ConformerBlock
from espnet_cif_hkd.encoder.chunks import FULL
from espnet_cif_hkd.encoder.frames import (
    INPUT_WINDOWS,
    centre_of_first,
    fewest_frames,
    frames_after,
)
from espnet_cif_hkd.encoder.front_end import apply_front_end
from espnet_cif_hkd.encoder.pooling import halve
from espnet_cif_hkd.errors import UserError

if TYPE_CHECKING:
    from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder


@dataclass(frozen=True)
class EncoderCache:
    """What the encoder keeps between two pieces of a stream.

    Attributes:
        features: Features of the incomplete chunk, ``(B, T, F)``, zero in padding.
        lengths: Valid features received, ``(B,)`` int64.
        received: Features received, padding included.
        n_chunks: Chunks encoded.
        blocks: Caches of the blocks.
    """

    features: torch.Tensor
    lengths: torch.Tensor
    received: int
    n_chunks: int
    blocks: tuple[BlockCache, ...]


def _blocks(encoder: CIFConformerEncoder) -> list[ConformerBlock]:
    return [cast(ConformerBlock, block) for block in encoder.encoders]


def chunk_span(encoder: CIFConformerEncoder, chunk_size: int) -> tuple[int, int]:
    """Features of a chunk.

    Returns:
        Features from the beginning of a chunk to that of the next one, and the number
        of features that the chunk needs, look-ahead of the input layer included.
    """
    _, stride = centre_of_first(encoder.windows())
    front_end = INPUT_WINDOWS[encoder.input_layer]
    _, step = centre_of_first(front_end)
    span = chunk_size * stride
    # A pooling stays inside of its chunk; the windows of the input layer do not.
    return span, span - step + fewest_frames(front_end)


def encode_piece(
    encoder: CIFConformerEncoder,
    xs_pad: torch.Tensor,
    cache: EncoderCache | None,
    ilens: torch.Tensor | None,
    last: bool,
) -> tuple[torch.Tensor, torch.Tensor, EncoderCache]:
    """Encode a piece; see :meth:`CIFConformerEncoder.forward_chunk`."""
    if encoder.decoding_chunk_size == FULL:
        raise UserError(
            "forward_chunk needs chunks: set encoder_conf: decoding_chunk_size to a "
            "number of frames; with full context a frame sees all later ones"
        )
    if encoder.training:
        raise UserError("forward_chunk is for evaluation: call eval() on the model")
    cache = _receive(encoder, xs_pad, cache, ilens)
    span, needed = chunk_span(encoder, encoder.decoding_chunk_size)
    outputs = [xs_pad.new_empty(xs_pad.size(0), 0, encoder.output_size())]
    olens = torch.zeros_like(cache.lengths)
    fewest = fewest_frames(encoder.windows())
    while cache.features.size(1) >= (fewest if last else needed):
        hs, lens, blocks = encode_chunk(encoder, cache, cache.features[:, :needed])
        outputs.append(hs)
        olens = olens + lens
        cache = EncoderCache(
            cache.features[:, span:],
            cache.lengths,
            cache.received,
            cache.n_chunks + 1,
            blocks,
        )
    hs_pad = torch.cat([frames.to(outputs[-1].dtype) for frames in outputs], dim=1)
    return hs_pad, olens, cache


def _receive(
    encoder: CIFConformerEncoder,
    xs_pad: torch.Tensor,
    cache: EncoderCache | None,
    ilens: torch.Tensor | None,
) -> EncoderCache:
    """Add a piece to the features of the incomplete chunk."""
    n_batch, n_features = xs_pad.shape[:2]
    if ilens is None:
        ilens = torch.full((n_batch,), n_features)
    ilens = ilens.to(xs_pad.device, torch.int64)
    if cache is None:
        cache = EncoderCache(
            xs_pad[:, :0],
            torch.zeros_like(ilens),
            0,
            0,
            tuple(block.empty_cache(xs_pad) for block in _blocks(encoder)),
        )
    if ((cache.lengths < cache.received) & (ilens > 0)).any():
        raise UserError(
            "forward_chunk: an utterance goes on after its end; a piece with fewer "
            "valid frames than others ends an utterance, later ones must have ilens 0"
        )
    valid = torch.arange(n_features, device=ilens.device) < ilens[:, None]
    xs_pad = xs_pad.masked_fill(~valid[..., None], 0.0)
    return EncoderCache(
        torch.cat([cache.features, xs_pad], dim=1),
        cache.lengths + ilens,
        cache.received + n_features,
        cache.n_chunks,
        cache.blocks,
    )


def encode_chunk(
    encoder: CIFConformerEncoder, cache: EncoderCache, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, tuple[BlockCache, ...]]:
    """Encode the features of one chunk.

    Args:
        encoder: In ``eval`` mode.
        cache: What earlier chunks left; its ``features`` are not used.
        features: Of the chunk, ``(B, F, C)``.

    Returns:
        Frames, ``(B, T, D)`` with T <= N, the number of valid ones, ``(B,)``, and the
        caches of the blocks.
    """
    xs = apply_front_end(encoder.embed, features)
    size = encoder.decoding_chunk_size * 2 ** len(encoder.pooling_layers)
    windows = INPUT_WINDOWS[encoder.input_layer]
    blocks: list[BlockCache] = []
    for number, (block, before) in enumerate(
        zip(_blocks(encoder), cache.blocks, strict=True), start=1
    ):
        n_before = before.keys.size(2)
        # Numbers of the valid frames of this section of the encoder
        first = cache.n_chunks * size - n_before
        frames = torch.arange(first, first + n_before + xs.size(1), device=xs.device)
        mask = frames < frames_after(cache.lengths, windows)[:, None]  # (B, P + T)
        xs, after = block.forward_chunk(
            xs, encoder.relative_positions(xs, n_before), mask[:, None], before
        )
        blocks.append(_newest(after, encoder.chunks.left, size))
        if number in encoder.pooling_layers:
            xs, size = halve(xs), size // 2
            windows = encoder.windows(number + 1)
    if encoder.after_norm is not None:
        xs = encoder.after_norm(xs)
    first = cache.n_chunks * size
    lengths = (frames_after(cache.lengths, windows) - first).clamp(0, xs.size(1))
    pad = torch.arange(xs.size(1), device=xs.device) >= lengths[:, None]
    return xs.masked_fill(pad[..., None], 0.0), lengths, tuple(blocks)


def _newest(cache: BlockCache, left_chunks: int, size: int) -> BlockCache:
    """Drop keys and values that no later chunk sees."""
    if left_chunks < 0:
        return cache
    # An exported graph has no conditions on sizes.
    kept = slice(-left_chunks * size, None) if left_chunks else slice(0)
    return BlockCache(
        cache.keys[:, :, kept], cache.values[:, :, kept], cache.convolution
    )
