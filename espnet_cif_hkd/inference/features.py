"""Feature frames of a stream of samples."""

from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
from espnet_cif_hkd.errors import UserError


class FeatureStream:
    """Computes the frames of a frontend, piece by piece.

    The frames are those of the frontend for the complete audio: a frame is computed
    when all of its samples are there, and only the ends of the audio are mirrored or,
    where frames are joined, repeated.

    Args:
        frontend: ``frontend: kaldi_fbank``, or ``default`` without dereverberation and
            beamforming.

    Raises:
        UserError: It is another frontend.
    """

    def __init__(self, frontend: Any) -> None:
        self._frontend = frontend
        if isinstance(frontend, KaldiFbankFrontend):
            spec = frontend.spec
            self._hop, self._size, self._before = spec.hop, spec.reach, 0
            self._stack, self._skip = spec.stack, spec.skip
        else:
            stft = _stft(frontend)
            self._hop, self._size = stft.hop_length, stft.n_fft
            self._before = stft.n_fft // 2 if stft.center else 0
            self._stack = self._skip = 1
        self._earlier = (self._stack - 1) // 2  # joined to the first of a frame
        self._samples = torch.zeros(0)
        self._begin = 0  # index in the audio of the first kept sample
        self._n_frames = 0  # frames returned

    @property
    def n_samples(self) -> int:
        """Samples received."""
        return self._begin + len(self._samples)

    @property
    def state_bytes(self) -> int:
        return self._samples.numel() * self._samples.element_size()

    def push(self, samples: Tensor, last: bool, until: int = 0) -> Tensor:
        """Add samples; return further frames.

        Args:
            samples: ``(S,)`` floating.
            last: Whether the audio ends with them.
            until: Number of frames of the audio so far that is worth a computation:
                with fewer, none is returned.

        Returns:
            Feature frames, ``(T, F)``.
        """
        self._samples = torch.cat([self._samples.to(samples), samples])
        count = self._count(last)
        if count <= self._n_frames or (count < until and not last):
            return samples.new_zeros(0, self._frontend.output_size())
        frames, _ = self._frontend(
            self._samples[None],
            torch.tensor([len(self._samples)], device=self._samples.device),
        )
        stride = self._hop * self._skip
        first = self._begin // stride
        frames = frames[0, self._n_frames - first : count - first]
        self._n_frames = count
        # The end may be mirrored: half a window more is kept.
        needed = count * stride - self._earlier * self._hop - 2 * self._before
        # The next frame may begin after the audio so far.
        needed = min(max(0, needed), self.n_samples)
        begin = max(self._begin, needed // stride * stride)
        self._samples = self._samples[begin - self._begin :].clone()
        self._begin = begin
        return frames

    def _count(self, last: bool) -> int:
        """Number of frames, joined if the frontend joins them, of the audio so far."""
        # Frame t has the samples from t · hop - before.
        end = self.n_samples + self._before * (2 if last else 1)
        count = max(0, (end - self._size) // self._hop + 1)
        if self.n_samples <= self._before:
            return 0  # too short to be mirrored
        if not last:  # those whose later neighbours are there
            count = max(0, count - (self._stack - 1 - self._earlier))
        return -(-count // self._skip)


def _stft(frontend: Any) -> Any:
    stft = getattr(frontend, "stft", None)
    inner = getattr(frontend, "frontend", None)
    changes = [getattr(inner, f"use_{one}", False) for one in ("wpe", "beamformer")]
    if type(frontend).__name__ != "DefaultFrontend" or stft is None or any(changes):
        raise UserError(
            f"the frontend {type(frontend).__name__} cannot be streamed: it may need "
            "the complete audio; use 'frontend: kaldi_fbank', or 'default' without "
            "use_wpe and use_beamformer"
        )
    return stft
