"""The parts of a model as modules that the ONNX exporter traces.

Shapes: as in :mod:`espnet_cif_hkd.decoder.cif_decoder`; N: hypotheses, P: earlier
tokens, K: frames around a firing, Y: layers of the decoder.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from espnet_cif_hkd.cif.dense import fire_densely
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
from espnet_cif_hkd.decoder.ctc_firing import CTCFiring
from espnet_cif_hkd.decoder.frame_attention import NearFrames
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.export.frontend import GraphNormalize
from espnet_cif_hkd.inference.onnx_folder import NEAR
from espnet_cif_hkd.plugin.compat import PositionalEncoding, RelPositionalEncoding


class _Positions(PositionalEncoding):  # type: ignore[misc]
    """Positions that a graph computes for any length."""

    def extend_pe(self, x: Tensor) -> None:
        """Compute the vectors of all positions of ``x (B, T, …)``."""
        places = torch.arange(x.size(1), device=x.device).float()
        self.pe = _sinusoids(places, self.d_model)


class _RelativePositions(RelPositionalEncoding):  # type: ignore[misc]
    """Relative positions that a graph computes for any length."""

    def extend_pe(self, x: Tensor) -> None:
        """Compute the vectors of T - 1 to 1 - T for ``x (B, T, …)``."""
        n_frames = x.size(1)
        places = torch.arange(2 * n_frames - 1, device=x.device)
        self.pe = _sinusoids((n_frames - 1 - places).float(), self.d_model)


def _sinusoids(places: Tensor, size: int) -> Tensor:
    """ESPnet's vectors of positions, ``(T,)`` to ``(1, T, D)``."""
    steps = torch.arange(0, size, 2, dtype=torch.float32)
    angles = places[:, None] * torch.exp(steps * -(math.log(10000.0) / size))
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[None]


def traceable(model: Any) -> Any:
    """Return a copy of a model for the exporter, in ``eval`` mode on the CPU.

    Raises:
        UserError: The model has positions of a kind that a graph cannot compute.
    """
    model = copy.deepcopy(model).cpu().float().eval()
    for name, module in model.named_modules():
        kind = type(module)
        if kind is PositionalEncoding:
            module.__class__ = _Positions
        elif kind is RelPositionalEncoding:
            module.__class__ = _RelativePositions
        elif kind.__name__.endswith("PositionalEncoding"):
            raise UserError(
                f"{name}: {kind.__name__} cannot be exported; train a model with "
                "cif_conformer, or a conformer with rel_pos_type: latest"
            )
    if getattr(model.decoder, "ctc_firing", None) is not None:
        model.decoder.ctc_firing.dense = True
    return model.requires_grad_(False)


class SpeechGraph(torch.nn.Module):
    """From samples or features to encoder frames.

    Args:
        model: Result of :func:`traceable`.
        features: Computes features from samples; None: the input is features.
    """

    def __init__(self, model: Any, features: torch.nn.Module | None) -> None:
        super().__init__()
        self.features = features
        self.normalize = GraphNormalize(model.normalize)
        self.preencoder, self.encoder = model.preencoder, model.encoder
        self.ctc = model.ctc

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""
        raise NotImplementedError

    def encode(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder frames ``(B, T, D)`` and their numbers."""
        feats = speech
        if self.features is not None:
            feats, lengths = self.features(speech, lengths)
        feats = self.normalize(feats, lengths)
        if self.preencoder is not None:
            feats, lengths = self.preencoder(feats, lengths)
        hs_pad, hlens, _ = self.encoder(feats, lengths)
        return hs_pad, hlens


class EncoderGraph(SpeechGraph):
    """From samples or features to fired vectors and what times are made of.

    Args:
        model: Result of :func:`traceable`.
        features: Computes features from samples; None: the input is features.
    """

    def __init__(self, model: Any, features: torch.nn.Module | None) -> None:
        super().__init__(model, features)
        self.decoder: CIFDecoder = model.decoder
        self.fire = FireGraph(model)

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""
        names = ["frame_lengths", "alpha"]
        names += [] if self.ctc is None else ["ctc"]
        if self.gives_frames:
            names.append("frames")
        if self.tries_spikes:
            names += ["other_weights", "other_lengths"]
        return [*names, *self.fire.outputs]

    @property
    def gives_frames(self) -> bool:
        """Whether another graph reads the encoder frames."""
        chooses = self.decoder.length_search is not None
        return chooses or isinstance(self.decoder, CIFWhisperDecoder)

    @property
    def tries_spikes(self) -> bool:
        """Whether the number of tokens is chosen among those of CTC's spikes."""
        spikes = self.decoder.ctc_firing is not None
        return spikes and self.decoder.length_search is not None

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Compute all :attr:`outputs`.

        Args:
            speech: Samples ``(B, S)`` or features ``(B, F, C)``.
            lengths: Number of valid ones, ``(B,)`` int64.
        """
        hs_pad, hlens = self.encode(speech, lengths)
        alpha = self.decoder.weights(hs_pad, hlens)
        found = [hlens, alpha]
        logp = None if self.ctc is None else self.ctc.log_softmax(hs_pad)
        if logp is not None:
            found.append(logp)
        if self.gives_frames:
            found.append(hs_pad)
        if self.tries_spikes:
            firing = cast(CTCFiring, self.decoder.ctc_firing)
            own = self.decoder.predictor(hs_pad, hlens)
            found += firing.thresholds(own, cast(Tensor, logp), hlens)
        return (*found, *self.fire(hs_pad, hlens, alpha))


class FireGraph(torch.nn.Module):
    """From encoder frames and their weights to fired vectors.

    Args:
        model: Result of :func:`traceable`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder: CIFDecoder = model.decoder
        self.nar: CIFNARDecoder | None = getattr(model, "nar", None)

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""
        names = ["fired", "token_lengths"]
        if isinstance(self.decoder, CIFWhisperDecoder):
            return [*names, "times"]
        return names + [
            f"{prefix}{part}"
            for prefix, decoder in (("near_", self.decoder), ("nar_near_", self.nar))
            if decoder is not None and decoder.frame_attention is not None
            for part in NEAR
        ]

    def forward(
        self, frames: Tensor, frame_lengths: Tensor, weights: Tensor
    ) -> tuple[Tensor, ...]:
        """Compute all :attr:`outputs`.

        Args:
            frames: Encoder frames, ``(B, T, D)``.
            frame_lengths: Number of valid ones, ``(B,)`` int64.
            weights: ``(B, T)``.
        """
        threshold = self.decoder.tail_threshold
        fired = fire_densely(frames, weights, frame_lengths, threshold)
        found = [fired.embeddings, fired.lengths]
        if isinstance(self.decoder, CIFWhisperDecoder):
            return (*found, fired.times)
        for decoder in (self.decoder, self.nar):
            if decoder is not None and decoder.frame_attention is not None:
                near = decoder.frame_attention.near(frames, frame_lengths, fired.times)
                found += [near.keys, near.values, near.allowed]
        return tuple(found)


class GrowingCache:
    """Keys and values of earlier steps, and of the step that a graph computes.

    Args:
        keys: Of earlier steps, ``(Y, N, P, D)``; P may be 0.
        values: As ``keys``.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._earlier = keys, values
        self._every: list[tuple[Tensor, Tensor]] = []

    def exchange(
        self, layer: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take those of a layer, ``(N, 1, D)``; return them after the earlier ones."""
        earlier_keys, earlier_values = self._earlier
        both = (
            torch.cat([earlier_keys[layer], keys], dim=1),
            torch.cat([earlier_values[layer], values], dim=1),
        )
        self._every.append(both)
        return both

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return keys and values of all steps, ``(Y, N, P + 1, D)`` each."""
        return stacked(self._every)


def stacked(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Keys and values of all layers, ``(Y, ...)`` each."""
    keys, values = zip(*pairs, strict=True)
    return torch.stack(keys), torch.stack(values)


class StepGraph(torch.nn.Module):
    """One step of the autoregressive decoder, with the keys and values of a search.

    Args:
        decoder: Of :func:`traceable`.
    """

    def __init__(self, decoder: CIFDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        tokens: Tensor,
        previous: Tensor,
        current: Tensor,
        keys: Tensor,
        values: Tensor,
        *near: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the next token.

        Args:
            tokens: The last token of each hypothesis, ``(N,)`` int64.
            previous: The vector fired for it, ``(N, D)``; zeros at the first step.
            current: The vector fired for the next token, ``(N, D)``.
            keys: Of earlier tokens, ``(Y, N, P, D)``; P may be 0.
            values: As ``keys``.
            near: Frames around the firing of the next token: keys and values
                ``(N, K, D)`` and ``allowed (N, K)``, if the decoder attends to them.

        Returns:
            Log-probabilities ``(N, V)``; keys and values ``(Y, N, P + 1, D)``.
        """
        cache = GrowingCache(keys, values)
        logits = self.decoder.extend(
            tokens[:, None],
            previous[:, None],
            current,
            keys.size(2),
            cache.exchange,
            near=NearFrames(*(one[:, None] for one in near)) if near else None,
        )
        return (logits.log_softmax(dim=-1), *cache.stacked())


class OnePassGraph(torch.nn.Module):
    """The one-pass decoder.

    Args:
        decoder: Of :func:`traceable`.
    """

    def __init__(self, decoder: CIFNARDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, fired: Tensor, token_lengths: Tensor, *near: Tensor) -> Tensor:
        """Log-probabilities of all tokens, ``(B, L, V)``."""
        logits = self.decoder.predict(
            fired, token_lengths, NearFrames(*near) if near else None
        )
        return logits.log_softmax(dim=-1)
