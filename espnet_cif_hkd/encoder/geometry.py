"""Times of encoder frames, from the frontend's hop and the sub-sampling.

A frame is centred in the samples that it sees before self-attention. The duration of
the audio divided by the number of frames is not the stride: sub-sampling drops frames
at the end, and frame 0 is not centred at 0 seconds.
"""

import logging
import math
from typing import Any

import torch

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.encoder.chunks import FULL
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.frames import Windows, centre_of_first
from espnet_cif_hkd.encoder.joined import JoinedEncoder
from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
from espnet_cif_hkd.encoder.streaming import chunk_span

# ESPnet's encoders that change the frame rate only in their ``embed``.
_EMBED_ONLY = {
    *("ConformerEncoder", "TransformerEncoder", "MultiConvConformerEncoder"),
    *("BranchformerEncoder", "EBranchformerEncoder", "LongformerEncoder"),
    *("ContextualBlockConformerEncoder", "ContextualBlockTransformerEncoder"),
}


def encoder_windows(
    encoder: torch.nn.Module, layer: int | None = None
) -> Windows | None:
    """Windows over time from features to encoder frames.

    Args:
        encoder: ``cif_conformer`` or an encoder of ESPnet.
        layer: Encoder layer, counted from 1; None: the output of the encoder.

    Returns:
        Width and stride of each window; None if the geometry of the encoder is unknown
        (RNN, VGG, pre-trained models).
    """
    if isinstance(encoder, CIFConformerEncoder):
        return encoder.windows(layer)
    if isinstance(encoder, JoinedEncoder):
        return encoder_windows(encoder.encoder, layer)
    if type(encoder).__name__ not in _EMBED_ONLY:
        return None
    embed = getattr(encoder, "embed", None) or torch.nn.Identity()
    convolutions = [
        module
        for module in embed.modules()
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d)
    ]
    if any(set(one.padding) != {0} or set(one.dilation) != {1} for one in convolutions):
        return None
    return tuple((one.kernel_size[0], one.stride[0]) for one in convolutions)


def feature_times(frontend: Any, rate: int) -> FrameTimes | None:
    """Times of the feature frames of a frontend.

    Args:
        frontend: ``speech_teacher``, a frontend of ESPnet, or None for features from
            files.
        rate: Sampling rate in Hz.

    Returns:
        None if the geometry is unknown.
    """
    if isinstance(frontend, SpeechTeacherFrontend):
        return frontend.times if frontend.is_known else None
    if isinstance(frontend, KaldiFbankFrontend):
        spec = frontend.spec
        # The middle frame of a joined one; with an even number, between two.
        middle = (spec.stack - 1) / 2 - (spec.stack - 1) // 2
        centre = len(spec.window) / 2 + middle * spec.hop
        return FrameTimes(centre / rate, spec.hop * spec.skip / rate)
    stft = getattr(frontend, "stft", None)  # frontend: default
    if stft is None:  # frontend: melspec_torch
        stft = getattr(getattr(frontend, "transform", None), "spectrogram", None)
    if stft is not None:
        centre = 0.0 if stft.center else stft.n_fft / 2
        return FrameTimes(centre / rate, stft.hop_length / rate)
    if type(frontend).__name__ == "SlidingWindow":
        return FrameTimes(frontend.win_length / 2 / rate, frontend.hop_length / rate)
    return None


def feature_rate(frontend: Any) -> int | None:
    """Sampling rate in Hz of the audio that a frontend reads; None if unknown."""
    if isinstance(frontend, SpeechTeacherFrontend):
        return frontend.rate
    if isinstance(frontend, KaldiFbankFrontend):
        return frontend.spec.rate
    mel = getattr(getattr(frontend, "logmel", None), "mel_options", {})
    rate: int | None = mel.get("sr")
    return rate


def _half_window(frontend: Any, rate: int) -> float:
    """Seconds after the centre of a feature frame that it still sees."""
    stft = getattr(frontend, "stft", None)
    stft = stft or getattr(getattr(frontend, "transform", None), "spectrogram", None)
    if isinstance(frontend, KaldiFbankFrontend):
        spec = frontend.spec
        return (len(spec.window) / 2 + (spec.stack - 1) / 2 * spec.hop) / rate
    return (frontend if stft is None else stft).win_length / 2 / rate


def algorithmic_latency(
    model: Any, rate: int, chunk_size: int | None = None
) -> float | None:
    """Latency of a streaming encoder without the time of computation.

    It is the time from the centre of the first frame of a chunk to the last sample that
    the chunk needs: the largest latency of a frame. Frame n of the chunk has n frames
    less. The look-ahead of the input layer and of the frontend's window is included.
    A centred frontend also mirrors the samples at the end of the audio.

    Args:
        model: An ESPnet ASR model.
        rate: Sampling rate of the audio in Hz.
        chunk_size: Frames of a chunk; None: the encoder's ``decoding_chunk_size``.

    Returns:
        Seconds; infinite with full context; None if the encoder is another one than
        ``cif_conformer`` or the geometry of a part is unknown.
    """
    encoder = model.encoder
    times = known_frame_times(model, rate)
    if times is None or not isinstance(encoder, CIFConformerEncoder):
        return None
    size = encoder.decoding_chunk_size if chunk_size is None else chunk_size
    # A foundation model as frontend reads the complete audio first.
    if size == FULL or isinstance(model.frontend, SpeechTeacherFrontend):
        return math.inf
    features = feature_times(model.frontend, rate)
    assert features is not None
    _, needed = chunk_span(encoder, size)
    last = features.offset + (needed - 1) * features.stride
    return last + _half_window(model.frontend, rate) - times.offset


def known_frame_times(
    model: Any, rate: int, layer: int | None = None
) -> FrameTimes | None:
    """Times of the encoder frames of a model.

    Args:
        model: An ESPnet ASR model, with ``frontend``, ``preencoder``, ``encoder`` and
            ``postencoder``.
        rate: Sampling rate of the audio in Hz.
        layer: Encoder layer, counted from 1; None: the output of the encoder.

    Returns:
        None if the geometry of a part is unknown.
    """
    features = feature_times(model.frontend, rate)
    windows = encoder_windows(model.encoder, layer)
    preencoder = type(model.preencoder).__name__  # linear: one frame to one frame
    if (
        features is None
        or windows is None
        or preencoder not in ("NoneType", "LinearProjection")
        or (layer is None and model.postencoder is not None)
    ):
        return None
    position, stride = centre_of_first(windows)
    return FrameTimes(
        features.offset + position * features.stride, stride * features.stride
    )


def frame_times(model: Any, rate: int, n_samples: int, n_frames: int) -> FrameTimes:
    """As :func:`known_frame_times`, or with a warning an estimate for one utterance.

    Args:
        model: An ESPnet ASR model.
        rate: Sampling rate of the audio in Hz.
        n_samples: Length of the utterance in samples.
        n_frames: Number of its encoder frames.

    Returns:
        Times of the frames of the encoder output. If the geometry is unknown, frames
        share the duration equally.
    """
    known = known_frame_times(model, rate)
    if known is not None:
        return known
    logging.warning(
        "the hop or the sub-sampling of %s with the frontend %s is unknown: times are "
        "estimated as duration / frames and may be wrong by some frames",
        type(model.encoder).__name__,
        type(model.frontend).__name__,
    )
    stride = n_samples / rate / max(n_frames, 1)
    return FrameTimes(stride / 2, stride)
