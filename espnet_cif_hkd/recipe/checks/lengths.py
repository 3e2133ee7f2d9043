"""The number of encoder frames of an utterance, computed without the model."""

import argparse
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espnet_cif_hkd.encoder.frames import (
    INPUT_WINDOWS,
    PAPER_INPUT,
    PAPER_POOLING,
    POOLING,
    Windows,
    fewest_frames,
    frames_after,
)

if TYPE_CHECKING:
    from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend

_ENCODERS = (
    "branchformer",
    "cif_conformer",
    "conformer",
    "e_branchformer",
    "longformer",
    "multiconv_conformer",
    "transformer",
)


class AbsFrameCounter(ABC):
    """Converts numbers of samples to numbers of frames: frontend, then encoder.

    Attributes:
        windows: Windows of the encoder over the frames of the frontend.
    """

    windows: Windows

    @property
    @abstractmethod
    def fewest_samples(self) -> int:
        """Samples that the frontend needs."""

    @abstractmethod
    def features(self, samples: int) -> int:
        """Return the number of frames of the frontend."""

    def encoded(self, samples: int) -> int:
        """Return the number of encoder frames; 0 if the utterance is too short."""
        frames = self.features(samples)
        if frames < fewest_frames(self.windows):
            return 0
        return frames_after(frames, self.windows)


@dataclass(frozen=True)
class TeacherFrameCounter(AbsFrameCounter):
    """Frames of ``frontend: speech_teacher``; the number may be wrong by one."""

    frontend: "SpeechTeacherFrontend"
    windows: Windows

    @property
    def fewest_samples(self) -> int:
        """See :class:`AbsFrameCounter`."""
        return self.frontend.fewest_samples

    def features(self, samples: int) -> int:
        """See :class:`AbsFrameCounter`."""
        return self.frontend.count(samples)


@dataclass(frozen=True)
class FrameCounter(AbsFrameCounter):
    """Frames of a spectrum."""

    n_fft: int
    hop_length: int
    center: bool
    windows: Windows

    @property
    def fewest_samples(self) -> int:
        """Samples that the front end needs: its padding mirrors half a window."""
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def features(self, samples: int) -> int:
        """See :class:`AbsFrameCounter`."""
        padded = samples + 2 * (self.n_fft // 2) if self.center else samples
        return max(0, (padded - self.n_fft) // self.hop_length + 1)


def frame_counter(args: argparse.Namespace) -> AbsFrameCounter | None:
    """Return the counter for a training configuration; None for unknown encoders."""
    frontend = args.frontend_conf or {}
    plain = args.frontend == "default" and frontend.get("apply_stft", True)
    windows = _encoder_windows(args.encoder, args.encoder_conf or {})
    if windows is None or args.preencoder is not None or args.postencoder is not None:
        return None
    if args.frontend == "speech_teacher":
        from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend

        return TeacherFrameCounter(SpeechTeacherFrontend(**frontend), windows)
    if not plain:
        return None
    return FrameCounter(
        n_fft=frontend.get("n_fft", 512),
        hop_length=frontend.get("hop_length", 128),
        center=frontend.get("center", True),
        windows=windows,
    )


def _encoder_windows(encoder: str, conf: dict[str, Any]) -> Windows | None:
    """Return the windows that reduce the number of frames; None if they are unknown."""
    if encoder == "joined":
        return _encoder_windows(
            str(conf.get("encoder", "conformer")), conf.get("encoder_conf") or {}
        )
    ours = encoder == "cif_conformer"
    layer = conf.get("input_layer", PAPER_INPUT if ours else "conv2d")
    pooling_layers = conf.get("pooling_layers", PAPER_POOLING) if ours else ()
    if (
        encoder not in _ENCODERS
        or layer not in INPUT_WINDOWS
        # The encoder reports the error in its options.
        or not isinstance(pooling_layers, list | tuple)
    ):
        return None
    return INPUT_WINDOWS[layer] + POOLING * len(pooling_layers)
