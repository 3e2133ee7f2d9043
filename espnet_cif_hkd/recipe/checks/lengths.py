"""The number of encoder frames of an utterance, computed without the model."""

import argparse
import itertools
from dataclasses import dataclass
from typing import Any

from espnet_cif_hkd.encoder.frames import (
    INPUT_WINDOWS,
    PAPER_INPUT,
    PAPER_POOLING,
    POOLING,
    Windows,
    fewest_frames,
    frames_after,
)

_ENCODERS = (
    "branchformer",
    "cif_conformer",
    "conformer",
    "e_branchformer",
    "longformer",
    "multiconv_conformer",
    "transformer",
)


@dataclass(frozen=True)
class FrameCounter:
    """Converts numbers of samples to numbers of frames: spectrum, then encoder."""

    n_fft: int
    hop_length: int
    center: bool
    windows: Windows

    @property
    def fewest_samples(self) -> int:
        """Samples that the front end needs: its padding mirrors half a window."""
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def spectrum(self, samples: int) -> int:
        """Return the number of frames of the front end."""
        padded = samples + 2 * (self.n_fft // 2) if self.center else samples
        return max(0, (padded - self.n_fft) // self.hop_length + 1)

    def encoded(self, samples: int) -> int:
        """Return the number of encoder frames; 0 if the utterance is too short."""
        frames = self.spectrum(samples)
        if frames < fewest_frames(self.windows):
            return 0
        return frames_after(frames, self.windows)


def frame_counter(args: argparse.Namespace) -> FrameCounter | None:
    """Return the counter for a training configuration; None for unknown encoders."""
    frontend = args.frontend_conf or {}
    plain = (
        args.frontend == "default"
        and frontend.get("apply_stft", True)
        and args.preencoder is None
        and args.postencoder is None
    )
    windows = _encoder_windows(args.encoder, args.encoder_conf or {})
    if not plain or windows is None:
        return None
    return FrameCounter(
        n_fft=frontend.get("n_fft", 512),
        hop_length=frontend.get("hop_length", 128),
        center=frontend.get("center", True),
        windows=windows,
    )


def _encoder_windows(encoder: str, conf: dict[str, Any]) -> Windows | None:
    """Return the windows that reduce the number of frames; None if they are unknown."""
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


def frames_needed(tokens: list[int]) -> int:
    """Return the frames that CTC needs: one per token, one between equal tokens."""
    repeats = sum(a == b for a, b in itertools.pairwise(tokens))
    return len(tokens) + repeats
