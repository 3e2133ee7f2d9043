"""Taps: the intermediate results of a recogniser that a criterion can read.

Names of taps
-------------
==============  =========================================================
``hs_pad``      encoder output
``layer:N``     output of encoder layer N, counted from 1
``fired``       fired vectors of integrate-and-fire, one for each token
``states:NAME`` decoder states: ``output`` is the input of the output layer,
                other names depend on the model
``logits``      output of the decoder, before the softmax; of a transducer, that of the
                joint network at all nodes of the lattice
``joint``       joint network of a transducer, for some nodes of the lattice
``speech``      samples of the audio, as ESPnet's trainer gives them to the model
``decoder``     the CIF decoder, for tokens whose fired vectors are given
==============  =========================================================

Shapes and names
----------------
===  ====================================================================
B    utterances
T    frames of the encoder output, padded
T_n  frames of encoder layer n, padded
U    target tokens without ``<eos>``, padded
L    U + 1, target tokens with ``<eos>``, padded
D    size of an encoder frame, of a fired vector, of a decoder state
V    vocabulary
S    samples of the audio, padded
===  ====================================================================

Padding may hold any value, NaN included. A criterion must exclude it before it computes
anything; the lengths define the valid frames and tokens.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError

# The taps of each model without encoder layers, whose number depends on the encoder.
MODEL_TAPS = {
    "cif": frozenset(
        {"hs_pad", "fired", "logits", "speech", "decoder"}
        | {f"states:{name}" for name in ("output", "joined", "transformer")}
    ),
    "hybrid": frozenset(
        {"hs_pad", "logits", "speech", "states:output", "states:transformer"}
    ),
    "pretrain": frozenset({"hs_pad", "speech"}),
    "transducer": frozenset({"hs_pad", "joint", "logits", "speech", "states:output"}),
}
_CALLED = {
    "fired": "fired vectors",
    "joint": "a joint network",
    "decoder": "a decoder that reads fired vectors and earlier tokens (decoder: cif)",
    "logits": "logits",
    "hs_pad": "encoder output",
    "speech": "the audio (a frontend, not input_size)",
}


@dataclass(frozen=True)
class TextDecoder:
    """The decoder of ``model: cif``, for sentences without speech.

    Attributes:
        embedding: Embeddings of the tokens, (V, D), without a gradient.
        sos: First token of the decoder's input.
        eos: Last target.
        decode: A function of fired vectors (B, L, D) and the token before each (B, L)
            to logits (B, L, V) and states (B, L, D). It reads no frames, also with
            ``frame_window``.
    """

    embedding: Tensor
    sos: int
    eos: int
    decode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Taps:
    """Results of a model in one training step, for its criteria.

    ``hs_pad``, the lengths and the target tokens are always set, other taps only if a
    criterion ``wants`` them.

    Attributes:
        hs_pad: Encoder output, (B, T, D).
        hlens: Valid frames of ``hs_pad``, (B,) int64.
        ys_pad: Target token ids without ``<eos>``, (B, U) int64.
        ys_pad_lens: Tokens of each utterance without ``<eos>``, (B,) int64.
        layers: Output of encoder layer n, (B, T_n, D), by n.
        layer_lens: Valid frames of encoder layer n, (B,) int64, by n.
        timing: Times of frames, by the name of the tap. A tap with unknown timing
            (another frontend, another input layer) is missing.
        fired: Fired vectors (B, L, D) with lengths, alpha and quantity.
        states: Decoder states, (B, L, D), by their name without ``states:``.
        logits: (B, L, V); of a transducer (B, T, L, V).
        scored: Whether the model's loss of ``logits`` contains the token, (B, L) bool;
            None: it contains all tokens.
        joint: Logits (N, V) of N nodes: a function of the frame of ``hs_pad`` (N, D)
            and the state ``output`` (N, D) of each. Criteria that read few nodes need
            no logits of the complete lattice.
        decoder: The decoder, for sentences without speech.
        speech: Samples of the audio, (B, S) float32; full scale is 1, or 32768 if
            ESPnet reads a ``kaldi_ark``.
        speech_lengths: Samples of each utterance, (B,) int64.
        utt_ids: Names of the utterances, if ESPnet gives them.
    """

    hs_pad: Tensor
    hlens: Tensor
    ys_pad: Tensor
    ys_pad_lens: Tensor
    layers: dict[int, Tensor] = field(default_factory=dict)
    layer_lens: dict[int, Tensor] = field(default_factory=dict)
    timing: dict[str, FrameTimes] = field(default_factory=dict)
    fired: CIFOutput | None = None
    states: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None
    scored: Tensor | None = None
    joint: Callable[[Tensor, Tensor], Tensor] | None = None
    decoder: TextDecoder | None = None
    speech: Tensor | None = None
    speech_lengths: Tensor | None = None
    utt_ids: list[str] | None = None

    @property
    def token_lens(self) -> Tensor:
        """Number of tokens of each utterance with ``<eos>``, (B,) int64."""
        return self.ys_pad_lens + 1

    @staticmethod
    def valid(lengths: Tensor, padded: Tensor) -> Tensor:
        """Return a mask of the valid rows of ``padded`` (B, N, …), (B, N) bool."""
        rows = torch.arange(padded.size(1), device=lengths.device)
        return rows < lengths[:, None]


@dataclass(frozen=True)
class TokenLoss:
    """The cross-entropy of a model's ``logits``, a part of its loss.

    Attributes:
        weight: Weight in the loss of the model.
        smoothing: Probability that label smoothing gives to the other tokens.
    """

    weight: float = 1.0
    smoothing: float = 0.0


@dataclass(frozen=True)
class Student:
    """The recogniser that a criterion is built for.

    Attributes:
        model: Name of the model in YAML, such as ``cif``.
        token_list: Tokens of the model.
        sizes: Width D or V of each tap of the model, by the name of the tap; 1 for
            ``speech``.
        label: Name of the criterion in messages.
        timing: Times of frames, by the name of the tap. A tap with unknown timing is
            missing.
        rate: Sampling rate of the audio in Hz; None if it is unknown.
        time_warp: Whether SpecAugment moves frames in time.
        token_loss: The model's loss of ``logits``; None if it has none.
    """

    model: str
    token_list: tuple[str, ...]
    sizes: Mapping[str, int]
    label: str = "the criterion"
    timing: Mapping[str, FrameTimes] = field(default_factory=dict)
    rate: int | None = None
    time_warp: bool = False
    token_loss: TokenLoss | None = None

    def size(self, tap: str) -> int:
        """Return the width of a tap.

        Raises:
            UserError: The model does not have this tap.
        """
        require_taps(self.label, [tap], self.sizes, self.model)
        return self.sizes[tap]


def layers_of(taps: Iterable[str]) -> list[int]:
    """Return the numbers of the encoder layers in ``taps``, sorted."""
    return sorted(
        int(tap.removeprefix("layer:")) for tap in taps if tap.startswith("layer:")
    )


def require_taps(
    label: str, wanted: Iterable[str], offered: Iterable[str], model: str
) -> None:
    """Check that the model has the taps of a criterion.

    Args:
        label: Name of the criterion in the message.
        wanted: Taps of the criterion.
        offered: Taps of the model; ``layer:*`` means encoder layers whose number is not
            known yet.
        model: Name of the model.

    Raises:
        UserError: A tap is missing; the message names it and the taps of the model.
    """
    offered = set(offered)
    for tap in sorted(wanted):
        kind, _, number = tap.partition(":")
        known = kind == "layer" and number.isdecimal() and "layer:*" in offered
        if tap in offered or known:
            continue
        what = _CALLED.get(tap, f"the tap {tap!r}")
        raise UserError(
            f"{label} needs {what}; model: {model} has none; choose among "
            f"{_listed(offered)}"
        )


def _listed(offered: set[str]) -> str:
    """Return the names of taps for a message; encoder layers as a range."""
    layers = layers_of(offered - {"layer:*"})
    names = sorted(tap for tap in offered if not tap.startswith("layer:"))
    if layers:
        names.append(f"layer:{layers[0]} to layer:{layers[-1]}")
    elif "layer:*" in offered:
        names.append("layer:N")
    return ", ".join(names)
