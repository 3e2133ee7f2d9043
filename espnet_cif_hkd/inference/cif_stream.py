"""Encoder frames of a stream in, fired vectors of passages out, in torch."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.cif.predictor import PredictorCache
from espnet_cif_hkd.cif.streaming import FiringCache, fire_piece
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.frame_attention import FrameAttention, NearFrames
from espnet_cif_hkd.inference.evidence import Floats
from espnet_cif_hkd.inference.passage_stream import (
    Fired,
    PassageLimits,
    PassageStream,
)


class _TorchFiring:
    """:func:`fire_piece` for :class:`PassageStream`."""

    def __init__(self, decoder: CIFDecoder) -> None:
        self._decoder = decoder
        self.cache: FiringCache | None = None

    @property
    def total(self) -> float:
        return 0.0 if self.cache is None else float(self.cache.total)

    @property
    def n_frames(self) -> int:
        return 0 if self.cache is None else int(self.cache.n_frames)

    def fire(self, hs: Tensor, alpha: Floats, last: bool) -> list[tuple[Tensor, float]]:
        fired, self.cache = fire_piece(
            hs[None],
            torch.from_numpy(alpha).to(hs.device)[None],
            torch.tensor([len(hs)]),
            self.cache,
            last,
            self._decoder.tail_threshold,
        )
        times = fired.firing_times[0].tolist()
        return list(zip(fired.embeddings[0], times, strict=True))

    def restart(self) -> None:
        assert self.cache is not None
        self.cache = replace(
            self.cache,
            total=torch.zeros_like(self.cache.total),
            partial=torch.zeros_like(self.cache.partial),
        )

    def stack(self, vectors: list[Tensor]) -> Tensor:
        size = self._decoder.output_layer.weight.size(1)
        return torch.stack(vectors) if vectors else torch.zeros(0, size)


class _TorchFrames:
    """Frames for the decoder's ``frame_window``."""

    def __init__(self, attention: FrameAttention) -> None:
        self._attention, self.window = attention, attention.window
        self.frames = torch.zeros(0)  # (1, T, D)
        self.first = 0

    @property
    def end(self) -> int:
        return self.first + (self.frames.size(1) if self.frames.dim() == 3 else 0)

    def add(self, hidden: Tensor) -> None:
        known = self.frames if self.frames.dim() == 3 else hidden[:, :0]
        self.frames = torch.cat([known, hidden], dim=1)

    def around(self, ends: list[float]) -> NearFrames:
        device = self.frames.device
        times = torch.tensor([ends], dtype=torch.float64, device=device)
        lengths = torch.tensor([self.frames.size(1)])
        return self._attention.near(self.frames, lengths, times - self.first)

    def forget(self, first: int) -> None:
        count = max(0, first - self.first)
        self.frames = self.frames[:, count:].clone()
        self.first += count


class CIFStream(PassageStream):
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
        self._decoder, attention = decoder, decoder.frame_attention
        self._firing = _TorchFiring(decoder)
        self._frames = None if attention is None else _TorchFrames(attention)
        super().__init__(self._firing, self._frames, limits)
        self.alpha = torch.zeros(0)
        self.predictor: PredictorCache | None = None

    @property
    def state(self) -> list[Any]:
        """What the stream keeps."""
        frames = None if self._frames is None else self._frames.frames
        return [self.predictor, self._firing.cache, frames]

    @torch.no_grad()
    def push(self, hidden: Tensor, last: bool) -> list[Fired]:
        """Add encoder frames.

        Args:
            hidden: ``(1, T, D)``; T may be 0.
            last: Whether the stream ends with them.

        Returns:
            Vectors, passage by passage. With ``last``, the last passage ends.
        """
        if self._frames is not None:
            self._frames.add(hidden)
        lengths = torch.tensor([hidden.size(1)])
        hs, alpha, _, self.predictor = self._decoder.predictor.forward_chunk(
            hidden, lengths, self.predictor, last
        )
        self.alpha = alpha[0]
        return self.integrate(hs[0], alpha[0].double().cpu().numpy(), last)
