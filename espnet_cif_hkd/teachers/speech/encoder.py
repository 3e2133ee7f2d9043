"""Encoders of speech models: from samples to the vectors of frames.

Each recording is read without padding, so its vectors do not depend on other
recordings. Only inputs of equal shape run in one batch.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes

# The windows of w2v-BERT's spectra, in samples at 16 kHz.
_FBANK_WINDOW, _FBANK_HOP = 400, 160


@dataclass(frozen=True)
class Window:
    """A part of a recording that the model reads at once.

    Attributes:
        inputs: Input of the model, without the axis of the batch, float32.
        keep: Frames of the output that belong to the recording.
    """

    inputs: Tensor
    keep: slice


class SpeechEncoder(torch.nn.Module):
    """A model that turns inputs of equal length into vectors of frames.

    Args:
        model: Model of transformers.
        extractor: Its feature extractor.
        layers: 0 is the input of the first layer, n the output of layer n.

    Attributes:
        rate: Sampling rate of the samples in Hz.
    """

    def __init__(self, model: torch.nn.Module, extractor: Any, layers: Sequence[int]):
        super().__init__()
        self.model = model
        self.extractor = extractor
        self.layers = list(layers)
        self.rate = int(extractor.sampling_rate)

    @staticmethod
    @abstractmethod
    def frame_times(config: Any, extractor: Any) -> FrameTimes:
        """Centres of frames in seconds.

        Args:
            config: Configuration of the model.
            extractor: Its feature extractor.
        """

    @property
    @abstractmethod
    def shortest(self) -> int:
        """Number of samples of the shortest recording with a frame."""

    @abstractmethod
    def windows(self, samples: np.ndarray) -> list[Window]:
        """Prepare a recording on the CPU.

        Args:
            samples: (S,) float32 at :attr:`rate`, at least :attr:`shortest` of them.
        """

    @abstractmethod
    def hidden_states(self, inputs: Tensor) -> Sequence[Tensor]:
        """Return the vectors of all layers, from the input of the first one.

        Args:
            inputs: (B, …) :attr:`Window.inputs` of equal shape.

        Returns:
            (B, T, D) for each of the layers 0 to the last.
        """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the vectors of the chosen layers, (B, T, C) float32.

        Args:
            inputs: (B, …) :attr:`Window.inputs` of equal shape, on the model's device.
        """
        weight = next(self.model.parameters())
        # The mixed precision of the student must not change the vectors.
        with torch.autocast(inputs.device.type, enabled=False):
            states = self.hidden_states(inputs.to(weight.dtype))
        return torch.cat([states[n] for n in self.layers], -1).float()


class WhisperSpeechEncoder(SpeechEncoder):
    """The encoder of Whisper, also for audio shorter or longer than its 30 s.

    ``exact`` audio is read without padding; then the model has only the first
    positions. ``full`` audio is padded with silence to the window, as in the training
    of Whisper, any other ``pad`` gives the seconds of silence, at most to the window;
    the frames of the recording are kept. Longer recordings are read in
    windows that overlap by a sixth; each frame comes from the window in which it is
    farther from the edge.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        extractor: Any,
        layers: Sequence[int],
        pad: str = "exact",
    ):
        super().__init__(model, extractor, layers)
        self._hop = 2 * int(extractor.hop_length)  # samples of a frame
        config: Any = model.config
        self._positions = int(config.max_source_positions)
        known = {"exact": 0, "full": self._positions * self._hop}
        self.silence = known[pad] if pad in known else round(float(pad) * self.rate)

    @staticmethod
    def frame_times(config: Any, extractor: Any) -> FrameTimes:
        """See :class:`SpeechEncoder`: frame j is centred at spectrum 2j."""
        return FrameTimes(0.0, 2 * extractor.hop_length / extractor.sampling_rate)

    @property
    def shortest(self) -> int:
        """See :class:`SpeechEncoder`; the spectrum reflects half a window."""
        return max(self._hop, int(self.extractor.n_fft) // 2 + 1)

    def windows(self, samples: np.ndarray) -> list[Window]:
        """See :class:`SpeechEncoder`; inputs are (mel bins, spectra)."""
        positions = self._positions
        n_frames = -(-(len(samples) * 2 // self._hop) // 2)
        margin = positions // 12
        step = positions - 2 * margin
        count = 1 + max(0, -(-(n_frames - positions) // step))
        found = []
        for n in range(count):
            first = n * step
            part = samples[first * self._hop : (first + positions) * self._hop]
            last = n == count - 1
            end = n_frames - first if last else positions - margin
            room = positions * self._hop - len(part)
            part = np.pad(part, (0, min(self.silence, room)))
            keep = slice(margin if n else 0, end)
            found.append(Window(self._spectra(part), keep))
        return found

    def _spectra(self, samples: np.ndarray) -> Tensor:
        mel = self.extractor(
            samples,
            sampling_rate=self.rate,
            padding="do_not_pad",
            truncation=False,
            return_tensors="pt",
        )
        return mel["input_features"][0].float()

    def hidden_states(self, inputs: Tensor) -> list[Tensor]:
        """See :class:`SpeechEncoder`; the last one is normalised, as for the decoder.

        transformers runs the encoder on 30 s only, so its parts are called here.
        """
        model: Any = self.model
        gelu = torch.nn.functional.gelu
        x = gelu(model.conv2(gelu(model.conv1(inputs)))).transpose(1, 2)
        states = [x + model.embed_positions.weight[: x.size(1)]]
        for layer in model.layers:
            # transformers 4 returns a tuple and needs layer_head_mask.
            output = layer(states[-1], None, layer_head_mask=None)
            states.append(output[0] if isinstance(output, tuple) else output)
        states[-1] = model.layer_norm(states[-1])
        return states


class WaveSpeechEncoder(SpeechEncoder):
    """wav2vec 2.0 and its relatives, which read samples."""

    @staticmethod
    def frame_times(config: Any, extractor: Any) -> FrameTimes:
        """See :class:`SpeechEncoder`: the centre of the samples that a frame sees."""
        rate = extractor.sampling_rate
        stride = math.prod(config.conv_stride)
        return FrameTimes(_samples_of_frame(config) / 2 / rate, stride / rate)

    @property
    def shortest(self) -> int:
        """See :class:`SpeechEncoder`."""
        return _samples_of_frame(self.model.config)

    def windows(self, samples: np.ndarray) -> list[Window]:
        """See :class:`SpeechEncoder`; inputs are (S,) samples, normalised if needed."""
        values = self.extractor(samples, sampling_rate=self.rate, return_tensors="pt")
        return [Window(values["input_values"][0].float(), slice(None))]

    def hidden_states(self, inputs: Tensor) -> Sequence[Tensor]:
        """See :class:`SpeechEncoder`."""
        output = self.model(inputs, output_hidden_states=True)
        # The last one is normalised, in all releases of transformers.
        return [*output.hidden_states[:-1], output.last_hidden_state]


def _samples_of_frame(config: Any) -> int:
    size = 1
    for kernel, stride in zip(
        reversed(config.conv_kernel), reversed(config.conv_stride), strict=True
    ):
        size = (size - 1) * stride + kernel
    return size


class BertSpeechEncoder(WaveSpeechEncoder):
    """w2v-BERT 2.0, which reads spectra; one frame joins several of them."""

    @staticmethod
    def frame_times(config: Any, extractor: Any) -> FrameTimes:
        """See :class:`SpeechEncoder`: the centre of the joined windows."""
        joined, rate = extractor.stride, extractor.sampling_rate
        seen = _FBANK_WINDOW + (joined - 1) * _FBANK_HOP
        return FrameTimes(seen / 2 / rate, joined * _FBANK_HOP / rate)

    @property
    def shortest(self) -> int:
        """See :class:`SpeechEncoder`; the variance needs two spectra."""
        joined = max(2, int(self.extractor.stride))
        return _FBANK_WINDOW + (joined - 1) * _FBANK_HOP

    def windows(self, samples: np.ndarray) -> list[Window]:
        """See :class:`SpeechEncoder`; inputs are (T, bins) joined spectra."""
        values = self.extractor(
            samples,
            sampling_rate=self.rate,
            padding="do_not_pad",
            return_tensors="pt",
        )
        return [Window(values["input_features"][0].float(), slice(None))]


# Encoders by the model_type of transformers.
KINDS: dict[str, type[SpeechEncoder]] = {
    "whisper": WhisperSpeechEncoder,
    "wav2vec2": WaveSpeechEncoder,
    "hubert": WaveSpeechEncoder,
    "wavlm": WaveSpeechEncoder,
    "data2vec-audio": WaveSpeechEncoder,
    "wav2vec2-bert": BertSpeechEncoder,
}
