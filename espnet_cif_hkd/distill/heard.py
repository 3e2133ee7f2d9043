"""The recordings of a batch, as a model receives them from ESPnet's trainer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.speech.base import (
    FULL_SCALE,
    Recording,
    coded_key,
    full_scales,
)


class HeardRecording(Recording):
    """A recording of a batch; its samples are copied to the host when they are used.

    Args:
        speech: Samples, (S,), on any device.
        full_scale: Value of a full scale in ``speech``, (1,), on its device.
        rate: Sampling rate in Hz.
        name: Name of the utterance.
        key: Result of ``recording_key`` for the samples.
    """

    def __init__(
        self, speech: Tensor, full_scale: Tensor, rate: int, name: str, key: bytes
    ) -> None:
        # The base class is frozen and has samples as an attribute.
        self.__dict__.update(
            rate=rate, name=name, _speech=speech, _full_scale=full_scale, _key=key
        )

    @property
    def samples(self) -> np.ndarray:  # type: ignore[override]
        """Samples on the host, (S,) float32; full scale is 1."""
        speech = self.__dict__["_speech"].float() / self.__dict__["_full_scale"]
        found: np.ndarray = speech.cpu().numpy()
        return found

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.__dict__["_speech"]) / self.rate

    @property
    def key(self) -> bytes:
        """Result of ``recording_key`` for the samples."""
        found: bytes = self.__dict__["_key"]
        return found


def heard(
    speech: Tensor | None,
    lengths: Sequence[int],
    rate: int,
    names: Sequence[str] | None = None,
) -> list[Recording]:
    """Return the recordings of a batch.

    Args:
        speech: (B, S), padded with zeros; full scale of an utterance is 1 or 32768.
        lengths: Samples of each utterance.
        rate: Sampling rate in Hz.
        names: Names of the utterances, for messages.

    Raises:
        UserError: The audio has several channels, or less precision than float32.
    """
    assert speech is not None
    if speech.dim() != 2:
        raise UserError(
            f"the audio has the shape {tuple(speech.shape)}, not (utterances, samples):"
            " speech teachers hear one channel, so convert the audio (asr.sh: "
            "--audio_format flac), or set preprocessor_conf.force_single_channel: true"
        )
    if torch.finfo(speech.dtype).bits < 32:
        raise UserError(
            f"the audio is {speech.dtype}, which changes its samples, so that no "
            "stored target is found: set train_dtype: float32"
        )
    speech = speech.detach()
    scales = full_scales(speech)
    # Integers, as in the sound file, are half the bytes and the content of the key.
    codes = (speech.float() * (FULL_SCALE / scales)).round()
    codes = codes.clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)
    host = codes.cpu().numpy().astype("<i2", copy=False)
    return [
        HeardRecording(
            speech[b, :count],
            scales[b],
            rate,
            names[b] if names else f"utterance {b} of the batch",
            coded_key(host[b, :count]),
        )
        for b, count in enumerate(lengths)
    ]


def check_length(
    recording: Recording, n_frames: int, times: FrameTimes, name: str
) -> None:
    """Check that a teacher has the frames of a complete recording.

    Args:
        recording: The recording.
        n_frames: Number of the teacher's frames.
        times: Times of the teacher's frames; the offset is half of a window.
        name: Name of the teacher in messages.

    Raises:
        UserError: It has more than a frame too few or too many.
    """
    stride = times.stride
    left = recording.seconds - (2 * times.offset + (n_frames - 1) * stride)
    if -stride - 1e-6 <= left <= 2 * stride + 1e-6:
        return
    raise UserError(
        f"teacher {name}: has {n_frames} frames of {1000 * stride:.5g} ms for "
        f"{recording.name}, which lasts {recording.seconds:.2f} s; the store was made "
        "from audio of another length or rate: delete it and fill it again, with the "
        "rate of the recordings"
    )


def pairs_of_host(lengths: Tensor, others: Tensor) -> tuple[list[int], list[int]]:
    """Copy two vectors of lengths to the host at once."""
    first, second = torch.stack([lengths.long(), others.long()]).tolist()
    return first, second


def flat_rows(frames: Tensor, utterances: np.ndarray, numbers: np.ndarray) -> Tensor:
    """Return some frames of (B, T, D), (N, D); others have no effect, even if NaN."""
    rows = on_device(utterances * frames.size(1) + numbers, frames.device)
    return frames.flatten(0, 1).index_select(0, rows)
