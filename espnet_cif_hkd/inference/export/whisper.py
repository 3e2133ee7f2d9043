"""``frontend: speech_teacher`` with Whisper as a part of a graph."""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.export.frontend import GraphFeatures
from espnet_cif_hkd.io.features import FeatureSpec
from espnet_cif_hkd.teachers.speech.encoder import SpeechEncoder, WhisperSpeechEncoder


class GraphWhisper(torch.nn.Module):
    """Features of one utterance from the encoder of Whisper.

    Args:
        frontend: The frontend.

    Raises:
        UserError: A graph cannot have this speech model.

    Attributes:
        spec: Of Whisper's log-mel features; its rate is that of the graph's samples.
        sampling_rate: Of the audio before it is converted to Whisper's rate, in Hz.
        longest: Most samples of an utterance at Whisper's rate.
    """

    def __init__(self, frontend: SpeechTeacherFrontend) -> None:
        super().__init__()
        encoder = frontend.speech_model or frontend.teacher.open()
        _check(encoder)
        assert isinstance(encoder, WhisperSpeechEncoder)
        self.encoder = copy.deepcopy(encoder).cpu().eval()
        self.pool = frontend.pool
        self.sampling_rate = frontend.rate
        extractor = encoder.extractor
        n_fft, hop = int(extractor.n_fft), int(extractor.hop_length)
        self.spec = FeatureSpec(
            rate=encoder.rate,
            hop=hop,
            window=torch.hann_window(n_fft, dtype=torch.float64).numpy(),
            n_fft=n_fft,
            mel=np.asarray(extractor.mel_filters, np.float64),
            pad=n_fft // 2,
            log=1 / math.log(10),
        )
        self.mel = GraphFeatures(self.spec)
        config: Any = encoder.model.config
        self.longest = 2 * hop * int(config.max_source_positions)
        self.silence = encoder.silence

    def fewest_samples(self, n_frames: int) -> int:
        """Fewest samples from which there are ``n_frames`` features."""
        spectra = 2 * n_frames * self.pool - 1
        return max(spectra * self.spec.hop, self.encoder.shortest)

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """From samples ``(1, S)`` to features ``(1, T, C)`` and their number."""
        n_frames = (speech.size(1) // self.spec.hop + 1) // 2
        if self.silence:
            padded = torch.nn.functional.pad(speech, (0, self.silence))
            speech = padded[:, : self.longest]
            lengths = (lengths + self.silence).clamp(max=self.longest)
        feats, _ = self.mel(speech, lengths)
        feats = feats[:, :-1]  # Whisper drops the last spectrum
        loudest = feats.amax(dim=(1, 2), keepdim=True)
        feats = (torch.maximum(feats, loudest - 8.0) + 4.0) / 4.0
        frames = self.encoder(feats.transpose(1, 2))
        if self.silence:
            frames = frames[:, :n_frames]
        count = frames.size(1) // self.pool
        frames = frames[:, : count * self.pool]
        frames = frames.reshape(frames.size(0), -1, self.pool, frames.size(2)).mean(2)
        return frames, torch.ones_like(frames[..., 0]).long().sum(dim=1)


def _check(encoder: SpeechEncoder | torch.nn.Module) -> None:
    name = "frontend: speech_teacher cannot be exported"
    if not isinstance(encoder, WhisperSpeechEncoder):
        raise UserError(f"{name} with {type(encoder).__name__}, with Whisper only")
    dtype = next(encoder.parameters()).dtype
    if dtype != torch.float32:
        raise UserError(f"{name} with teacher_dtype {dtype}, with float32 only")
