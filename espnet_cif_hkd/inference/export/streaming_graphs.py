"""The encoder of a stream as graphs: one chunk, and the weights of frames.

Shapes: F features of a chunk, C their size, T frames of a chunk, D size of a frame;
H heads, P earlier frames that a block sees, d = D / H, Y blocks of a section of the
encoder (between two poolings), X all blocks.
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.cif.predictor import CIFPredictor
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.block import BlockCache, ConformerBlock
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.frames import fewest_frames
from espnet_cif_hkd.encoder.streaming import EncoderCache, chunk_span, encode_chunk
from espnet_cif_hkd.inference.export.frontend import GraphFeatures, GraphNormalize
from espnet_cif_hkd.inference.export.onnx_files import Graph
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.io.features import FeatureSpec

# More features than a stream has: all frames of a chunk are valid.
_ENDLESS = 2**40


class ChunkGraph(torch.nn.Module):
    """Encode one chunk of a stream.

    Args:
        model: Result of :func:`traceable`, with chunks.
        spec: Of the features.
    """

    def __init__(self, model: Any, spec: FeatureSpec) -> None:
        super().__init__()
        self.features = GraphFeatures(spec)
        self.normalize = GraphNormalize(model.normalize)
        self.preencoder = model.preencoder
        self.encoder: CIFConformerEncoder = model.encoder
        self.near = model.decoder.frame_attention
        self.sizes: list[int] = []  # blocks of each section
        first = 0
        for last in (*self.encoder.pooling_layers, len(self.encoder.encoders)):
            if last > first:
                self.sizes.append(last - first)
            first = last

    def caches(self, n_frames: int) -> dict[str, Tensor]:
        """Examples of what a block keeps, with ``n_frames`` earlier frames."""
        block = self.encoder.encoders[0]
        assert isinstance(block, ConformerBlock)
        empty = block.empty_cache(torch.zeros(1, 1, 1))
        heads, size = empty.keys.shape[1], empty.keys.shape[3]
        random = torch.Generator().manual_seed(4)
        found = {
            f"cache_{n}": torch.randn(2, count, heads, n_frames, size, generator=random)
            for n, count in enumerate(self.sizes)
        }
        shape = (sum(self.sizes), *empty.convolution.shape[1:])
        found["cache_convolution"] = torch.randn(*shape, generator=random)
        return found

    def forward(self, speech: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Encode a chunk.

        Args:
            speech: Samples of its features, ``(1, S)``.
            caches: Keys and values of each section, ``(2, Y, H, P, d)``; the input of
                the convolutions, ``(X, D, left)``.

        Returns:
            Frames, ``(1, T, D)``; the caches for the next chunk; with ``frame_window``
            keys and values of the frames, ``(1, T, D)``.
        """
        feats = self.features.inside(speech)
        lengths = torch.ones_like(feats[..., 0]).long().sum(dim=1)
        feats = self.normalize(feats, lengths)
        if self.preencoder is not None:
            feats, _ = self.preencoder(feats, lengths)
        sections, convolution = caches[:-1], caches[-1]
        keyed = [both for part in sections for both in part.transpose(0, 1).split(1)]
        blocks = tuple(
            BlockCache(both[:, 0], both[:, 1], before)
            for both, before in zip(keyed, convolution.split(1), strict=True)
        )
        endless = torch.full((1,), _ENDLESS)
        cache = EncoderCache(feats, endless, 0, 0, blocks)
        frames, _, after = encode_chunk(self.encoder, cache, feats)
        found, first = [frames], 0
        for count in self.sizes:
            part = after[first : first + count]
            keys = torch.cat([one.keys for one in part])
            found.append(torch.stack([keys, torch.cat([one.values for one in part])]))
            first += count
        found.append(torch.cat([one.convolution for one in after]))
        if self.near is not None:
            normed = self.near.norm_frames(frames)
            found += [self.near.key(normed), self.near.value(normed)]
        return tuple(found)


class WeightsGraph(torch.nn.Module):
    """The weights of frames between neighbours.

    Args:
        predictor: Of :func:`traceable`.
    """

    def __init__(self, predictor: CIFPredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, frames: Tensor) -> Tensor:
        """From ``(1, left + T + right, D)`` to ``(1, T)``."""
        return self.predictor.inside(frames)


def streaming_graphs(model: Any, spec: FeatureSpec) -> list[Graph]:
    """The graphs ``chunk`` and ``weights``."""
    decoder: CIFDecoder = model.decoder
    chunk = ChunkGraph(model, spec).eval()
    _, needed = chunk_span(chunk.encoder, chunk.encoder.decoding_chunk_size)
    random = torch.Generator().manual_seed(0)
    n_samples = (needed - 1) * spec.hop + spec.reach
    # With another number of earlier frames than the chunk has.
    caches = chunk.caches(2 * needed + 1)
    outputs = ["frames", *(f"next_{name}" for name in caches)]
    axes: dict[str, dict[int, str]] = {"speech": {1: "samples"}, "frames": {1: "T"}}
    for name in caches:
        if name != "cache_convolution":
            axes |= {name: {3: f"P_{name}"}, f"next_{name}": {3: f"Q_{name}"}}
    if chunk.near is not None:
        outputs += ["near_keys", "near_values"]
        axes |= {"near_keys": {1: "T"}, "near_values": {1: "T"}}
    speech = torch.randn(1, n_samples, generator=random) * 0.1
    size = decoder.output_layer.in_features
    weights = WeightsGraph(decoder.predictor).eval()
    frames = torch.randn(1, 9 + decoder.predictor.conv.kernel_size[0], size)
    return [
        Graph("chunk", chunk, {"speech": speech, **caches}, outputs, axes),
        Graph(
            "weights",
            weights,
            {"frames": frames},
            ["alpha"],
            {"frames": {1: "N"}, "alpha": {1: "T"}},
        ),
    ]


def streaming_metadata(model: Any, spec: FeatureSpec, timing: Timing) -> dict[str, Any]:
    """What :class:`espnet_cif_hkd.inference.onnx_stream.OnnxStream` reads."""
    decoder, encoder = model.decoder, model.encoder
    span, needed = chunk_span(encoder, encoder.decoding_chunk_size)
    attention = decoder.frame_attention
    return {
        "chunks": {
            "hop": spec.hop,
            "reach": spec.reach,
            "pad": spec.pad,
            "span": span,
            "needed": needed,
            "fewest": fewest_frames(encoder.windows()),
        },
        "left": decoder.predictor.left,
        "right": decoder.predictor.right,
        "size": decoder.output_layer.in_features,
        "tail_threshold": decoder.tail_threshold,
        "window": 0 if attention is None else attention.window,
        "timing": asdict(timing),
    }
