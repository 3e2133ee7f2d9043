"""The frontend and the normalisation of a model as parts of a graph."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.features import FeatureSpec
from espnet_cif_hkd.models.own_features import mirrored_reach


def feature_spec(frontend: Any) -> FeatureSpec:
    """Parameters of the features of a frontend.

    Raises:
        UserError: A graph cannot have this frontend.
    """
    if isinstance(frontend, KaldiFbankFrontend):
        return frontend.spec
    if type(frontend).__name__ != "DefaultFrontend":
        raise UserError(
            f"the frontend {type(frontend).__name__} cannot be exported: a graph has "
            "'frontend: default', 'kaldi_fbank' or 'speech_teacher' with Whisper"
        )
    inner = frontend.frontend
    if inner is not None and (inner.use_wpe or inner.use_beamformer):
        raise UserError(
            "frontend_conf: a frontend with use_wpe or use_beamformer cannot be "
            "exported; train a model without them"
        )
    stft, logmel = frontend.stft, frontend.logmel
    if stft is None or not stft.onesided:
        raise UserError(
            "frontend_conf: apply_stft: false and onesided: false cannot be exported"
        )
    window = np.ones(stft.win_length)
    if stft.window is not None:
        make = getattr(torch, f"{stft.window}_window")
        window = make(stft.win_length, dtype=torch.float64).numpy()
    base = logmel.log_base
    spec = FeatureSpec(
        rate=int(logmel.mel_options["sr"]),
        hop=stft.hop_length,
        window=window,
        n_fft=stft.n_fft,
        mel=logmel.melmat.double().cpu().numpy(),
        pad=mirrored_reach(frontend),
        scale=stft.n_fft**-0.5 if stft.normalized else 1.0,
        log=1.0 if base is None else float(1 / np.log(base)),
    )
    if not stft.center and stft.win_length != stft.n_fft:
        raise UserError(
            "frontend_conf: center: false with another win_length than n_fft cannot "
            "be exported"
        )
    return spec


def count_up(end: Any) -> Tensor:
    """0 to ``end`` - 1; the tracer keeps a tensor as ``end``."""
    return torch.arange(end)


class GraphFeatures(torch.nn.Module):
    """Features of a batch of samples, in operations that ONNX has.

    The Fourier transform is a matrix product in float64. The ends of each utterance are
    mirrored, also in a batch; ESPnet mirrors those of the longest one only.

    Args:
        spec: The parameters.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("basis", torch.from_numpy(spec.basis()))
        self.register_buffer("mel", torch.from_numpy(np.asarray(spec.mel, np.float64)))

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """From samples ``(B, S)`` to features ``(B, T, width)`` and their numbers."""
        spec, reach = self.spec, self.spec.reach
        frames_of = torch.div(
            lengths + 2 * spec.pad - reach, spec.hop, rounding_mode="floor"
        )
        n_frames = (frames_of + 1).clamp(min=1)
        frame = count_up(n_frames.max())
        place = frame[:, None] * spec.hop + torch.arange(reach) - spec.pad  # (T, N)
        last = (lengths - 1)[:, None, None]
        place = last - (last - place.abs()).abs()  # mirrored at both ends
        place = torch.maximum(place, torch.zeros_like(place))  # padding of the batch
        chosen = speech.gather(1, place.flatten(1)).view(place.shape)
        feats = self._features(chosen)
        feats, n_frames = self._joined(feats, n_frames)
        pad = torch.arange(feats.size(1)) >= n_frames[:, None]
        return feats.masked_fill(pad[..., None], 0.0), n_frames

    def inside(self, speech: Tensor) -> Tensor:
        """Features of all frames that lie in samples ``(B, S)``, without mirroring."""
        spec = self.spec
        n_frames = (speech.size(1) - spec.reach) // spec.hop + 1
        place = count_up(n_frames)[:, None] * spec.hop + torch.arange(spec.reach)
        return self._features(speech[:, place])

    def _features(self, frames: Tensor) -> Tensor:
        """From frames of samples ``(B, T, N)`` to features ``(B, T, M)``."""
        spectra = frames.double() @ self.basis  # (B, T, 2 F)
        size = self.mel.size(0)
        power = spectra[..., :size] ** 2 + spectra[..., size:] ** 2
        feats = (power @ self.mel).clamp(min=self.spec.floor).log() * self.spec.log
        return feats.float()

    def _joined(self, feats: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor]:
        spec = self.spec
        if not spec.joins:
            return feats, n_frames
        count = torch.div(n_frames + spec.skip - 1, spec.skip, rounding_mode="floor")
        first = count_up(count.max()) * spec.skip - (spec.stack - 1) // 2
        place = (first[:, None] + torch.arange(spec.stack)).clamp(min=0)  # (T', m)
        place = torch.minimum(place[None], (n_frames - 1)[:, None, None])
        rows = place.flatten(1)[..., None].expand(-1, -1, feats.size(2))
        return feats.gather(1, rows).view(feats.size(0), -1, spec.width), count


class GraphNormalize(torch.nn.Module):
    """ESPnet's normalisation of features, without changes in place.

    Args:
        normalize: ``global_mvn``, ``utterance_mvn`` or None.

    Raises:
        UserError: It is another one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, normalize: Any) -> None:
        super().__init__()
        self.kind = type(normalize).__name__
        if self.kind not in ("NoneType", "GlobalMVN", "UtteranceMVN"):
            raise UserError(
                f"normalize: {self.kind} cannot be exported; train a model with "
                "global_mvn or utterance_mvn"
            )
        if normalize is not None:
            self.means, self.variances = normalize.norm_means, normalize.norm_vars
        if self.kind == "GlobalMVN":
            self.register_buffer("mean", normalize.mean.float().cpu())
            self.register_buffer("std", normalize.std.float().cpu())
        elif self.kind == "UtteranceMVN":
            self.eps = normalize.eps

    def forward(self, feats: Tensor, lengths: Tensor) -> Tensor:
        """Normalise features ``(B, T, F)``; zero in padding."""
        if self.kind == "NoneType":
            return feats
        pad = (torch.arange(feats.size(1)) >= lengths[:, None])[..., None]
        if self.kind == "GlobalMVN":
            if self.means:
                feats = feats - self.mean
            feats = feats.masked_fill(pad, 0.0)
            return feats / self.std if self.variances else feats
        count = lengths[:, None, None].to(feats.dtype)
        feats = feats.masked_fill(pad, 0.0)
        centred = feats - feats.sum(dim=1, keepdim=True) / count
        # In a batch, ESPnet's variance includes padding; here it does not.
        inside = centred.masked_fill(pad, 0.0)
        feats = centred if self.means else feats
        if self.variances:
            variance = inside.pow(2).sum(dim=1, keepdim=True) / count
            feats = feats / variance.sqrt().clamp(min=self.eps)
        return feats
