"""The places of a recogniser where a criterion can attach, and what is read there.

Names of taps
-------------
==============  =========================================================
``hs_pad``      encoder output
``layer:N``     output of encoder layer N, counted from 1
``fired``       vectors that integrate-and-fire made, one for each token
``states:NAME`` decoder states: ``output`` are those that the output layer
                reads, other names depend on the model
``logits``      output of the decoder, before the softmax
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
===  ====================================================================

Padding may hold any value, NaN included. A criterion must leave it out before it
computes anything: lengths say which frames and tokens are valid.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError

# The taps of each model but for encoder layers, whose number depends on the encoder.
MODEL_TAPS = {
    "cif": frozenset(
        {"hs_pad", "fired", "logits"}
        | {f"states:{name}" for name in ("output", "joined", "transformer")}
    ),
    "hybrid": frozenset({"hs_pad", "logits", "states:output", "states:transformer"}),
}
_CALLED = {"fired": "fired vectors", "logits": "logits", "hs_pad": "encoder output"}


@dataclass
class Taps:
    """What a model exposes to its criteria in one training step.

    Only what at least one criterion ``wants`` is there; ``hs_pad``, the lengths and the
    target tokens always are.

    Attributes:
        hs_pad: Encoder output, (B, T, D).
        hlens: Valid frames of ``hs_pad``, (B,) int64.
        ys_pad: Target token ids without ``<eos>``, (B, U) int64.
        ys_pad_lens: Tokens of each utterance without ``<eos>``, (B,) int64.
        layers: Output of encoder layer n, (B, T_n, D), by n.
        layer_lens: Valid frames of these, (B,) int64, by n.
        timing: When frames are, by the tap's name; a tap whose timing is not known
            (another frontend, another input layer) is missing.
        fired: Fired vectors (B, L, D) with lengths, alpha and quantity.
        states: Decoder states, (B, L, D), by their name without ``states:``.
        logits: (B, L, V).
        utt_ids: Names of the utterances, where ESPnet gives them.
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
    utt_ids: list[str] | None = None

    @property
    def token_lens(self) -> Tensor:
        """Tokens of each utterance with ``<eos>``, (B,): what is valid of L."""
        return self.ys_pad_lens + 1

    @staticmethod
    def valid(lengths: Tensor, padded: Tensor) -> Tensor:
        """True at the valid rows of ``padded`` (B, N, …), (B, N) bool."""
        rows = torch.arange(padded.size(1), device=lengths.device)
        return rows < lengths[:, None]


@dataclass(frozen=True)
class Student:
    """The recogniser that a criterion is built for.

    Attributes:
        model: Its name in YAML, such as ``cif``.
        token_list: Its tokens.
        sizes: The width of each tap that it has, by the tap's name.
        label: How messages call the criterion.
    """

    model: str
    token_list: tuple[str, ...]
    sizes: Mapping[str, int]
    label: str = "the criterion"

    def size(self, tap: str) -> int:
        """The width of a tap.

        Raises:
            UserError: The model does not have it.
        """
        require_taps(self.label, [tap], self.sizes, self.model)
        return self.sizes[tap]


def layers_of(taps: Iterable[str]) -> list[int]:
    """The encoder layers among some taps, in order."""
    return sorted(
        int(tap.removeprefix("layer:")) for tap in taps if tap.startswith("layer:")
    )


def require_taps(
    label: str, wanted: Iterable[str], offered: Iterable[str], model: str
) -> None:
    """Refuse a criterion that wants a tap which the model lacks.

    Args:
        label: Names the criterion in the message.
        wanted: Taps of the criterion.
        offered: Taps of the model; ``layer:*`` stands for encoder layers of which the
            number is not known yet.
        model: Name of the model.

    Raises:
        UserError: Names the tap and what the model has instead.
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
    """Some taps in words; encoder layers as a range."""
    layers = layers_of(offered - {"layer:*"})
    names = sorted(tap for tap in offered if not tap.startswith("layer:"))
    if layers:
        names.append(f"layer:{layers[0]} to layer:{layers[-1]}")
    elif "layer:*" in offered:
        names.append("layer:N")
    return ", ".join(names)
