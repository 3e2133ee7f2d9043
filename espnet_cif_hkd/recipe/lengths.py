"""How many frames an encoder makes of an utterance, without running it."""

import argparse
import itertools
from dataclasses import dataclass

# What each input layer of ESPnet's encoders takes off the end, and its stride, per
# convolution; and the shortest input it accepts (espnet's subsampling module).
_CONVOLUTIONS: dict[str | None, tuple[tuple[int, int], ...]] = {
    None: (),
    "linear": (),
    "embed": (),
    "conv1d1": ((2, 1), (2, 1)),
    "conv1d2": ((2, 1), (2, 2)),
    "conv1d3": ((2, 1), (4, 3)),
    "conv2d": ((2, 2), (2, 2)),
    "conv2d1": ((4, 1),),
    "conv2d2": ((2, 2), (2, 1)),
    "conv2d6": ((2, 2), (4, 3)),
    "conv2d8": ((2, 2), (2, 2), (2, 2)),
}
_SHORTEST: dict[str | None, int] = {
    "conv1d1": 5,
    "conv1d2": 5,
    "conv1d3": 7,
    "conv2d": 7,
    "conv2d1": 5,
    "conv2d2": 7,
    "conv2d6": 11,
    "conv2d8": 15,
}
_ENCODERS = (
    "branchformer",
    "conformer",
    "e_branchformer",
    "longformer",
    "multiconv_conformer",
    "transformer",
)


@dataclass(frozen=True)
class FrameCounter:
    """Turns samples into frames: a short-time spectrum, then an input layer."""

    n_fft: int
    hop_length: int
    center: bool
    input_layer: str | None

    def spectrum(self, samples: int) -> int:
        """Frames of the front end."""
        padded = samples + 2 * (self.n_fft // 2) if self.center else samples
        return max(0, (padded - self.n_fft) // self.hop_length + 1)

    def encoded(self, samples: int) -> int:
        """Frames of the encoder; 0 if the utterance is too short for it."""
        frames = self.spectrum(samples)
        if frames < _SHORTEST.get(self.input_layer, 1):
            return 0
        for cut, stride in _CONVOLUTIONS[self.input_layer]:
            frames = -(-(frames - cut) // stride)
        return frames


def frame_counter(args: argparse.Namespace) -> FrameCounter | None:
    """The counter for a training configuration, or None if its rules are unknown."""
    frontend = args.frontend_conf or {}
    layer = (args.encoder_conf or {}).get("input_layer", "conv2d")
    plain = (
        args.frontend == "default"
        and frontend.get("apply_stft", True)
        and args.preencoder is None
        and args.postencoder is None
    )
    if not plain or args.encoder not in _ENCODERS or layer not in _CONVOLUTIONS:
        return None
    return FrameCounter(
        n_fft=frontend.get("n_fft", 512),
        hop_length=frontend.get("hop_length", 128),
        center=frontend.get("center", True),
        input_layer=layer,
    )


def frames_needed(tokens: list[int]) -> int:
    """Frames CTC needs: one per token, and a blank between two equal tokens."""
    repeats = sum(a == b for a, b in itertools.pairwise(tokens))
    return len(tokens) + repeats
