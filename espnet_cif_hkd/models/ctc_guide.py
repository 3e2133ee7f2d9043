"""The options ``ctc_guide_*`` of ``model: cif``."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.cif.segments import utterance_weights
from espnet_cif_hkd.distill.schedule import CommonOptions
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.ctc_guide import (
    ctc_drift,
    ctc_guide_loss,
    ctc_spike_loss,
)

KINDS = ("sum", "spikes")
SCALINGS = ("utterance", "segments")
FIRINGS = ("alpha", "spikes")


@dataclass(frozen=True)
class CTCGuide:
    """How CTC guides the firing.

    Attributes:
        weight: Of the loss; 0: there is no loss.
        kind: ``sum``: :func:`ctc_guide_loss`; ``spikes``: :func:`ctc_spike_loss`.
        slack: Of ``sum``, in tokens.
        scaling: ``utterance``, or ``segments``: alpha is scaled to 1 between CTC's
            spikes.
        firing: ``alpha``, or ``spikes``: recognition fires at CTC's spikes.
        threshold: Of ``spikes``; see :func:`ctc_free_spikes`.
        schedule: The first update of the loss and of the segments.
    """

    weight: float
    kind: str
    slack: float
    scaling: str
    firing: str
    threshold: float | None
    schedule: CommonOptions

    @property
    def needs_spikes(self) -> bool:
        """Whether the loss or the scaling uses CTC's spikes."""
        return self.weight > 0 or self.scaling == "segments"

    def segment_ends(self, spikes: torch.Tensor | None) -> torch.Tensor | None:
        """Return what scales alpha: ``spikes (B, U)``, or None: the utterance."""
        return spikes if self.scaling == "segments" else None

    def loss(self, fired: CIFOutput, spikes: torch.Tensor) -> torch.Tensor:
        """Return the loss, a sum over tokens, without its weight.

        Args:
            fired: Vectors fired for known tokens.
            spikes: Frames of :func:`ctc_spikes`, ``(B, U)``.
        """
        if self.kind == "sum":
            scaled = utterance_weights(fired.unscaled, fired.lengths)
            return ctc_guide_loss(scaled, spikes, self.slack)
        return ctc_spike_loss(fired.unscaled, spikes)


@torch.no_grad()
def mean_drift(fired: CIFOutput, spikes: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute :func:`ctc_drift` of the tokens with a spike, a scalar.

    Arguments: see :meth:`CTCGuide.loss`. Alpha is scaled over the utterance.
    """
    n_tokens = (spikes >= 0).sum().clamp(min=1)
    scaled = utterance_weights(fired.unscaled, fired.lengths)
    return (ctc_drift(scaled, spikes).abs().sum() / n_tokens).float()


def build_guide(
    ctc_weight: float,
    weight: Any,
    kind: Any,
    slack: Any,
    scaling: Any,
    firing: Any,
    threshold: Any,
    start: Any,
) -> CTCGuide:
    """Check the options and return the guide.

    Raises:
        UserError: An option is wrong, or there is no CTC.
    """
    for name, value in (("weight", weight), ("slack", slack)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 <= value < math.inf):
            raise UserError(
                f"model_conf: ctc_guide_{name} is {value!r}; it must be a number >= 0"
            )
    choices = {"kind": (kind, KINDS), "scaling": (scaling, SCALINGS)}
    choices["firing"] = (firing, FIRINGS)
    for name, (value, known) in choices.items():
        if value not in known:
            raise UserError(
                f"model_conf: ctc_guide_{name} is {value!r}; it must be "
                f"{' or '.join(known)}"
            )
    if threshold is not None:
        is_share = type(threshold) is float and 0 < threshold < 1
        if not is_share:
            raise UserError(
                f"model_conf: ctc_guide_threshold is {threshold!r}; it must be a "
                "number between 0 and 1, or null"
            )
        if firing != "spikes":
            raise UserError(
                "model_conf: ctc_guide_threshold is of ctc_guide_firing: spikes, not "
                f"{firing}; set it to null"
            )
    if type(start) is not int or start < 0:
        raise UserError(
            f"model_conf: ctc_guide_start is {start!r}; it must be a number of "
            "optimizer updates, an integer >= 0"
        )
    needs = {"weight": (weight, 0), "scaling": (scaling, "utterance")}
    needs["firing"] = (firing, "alpha")
    for name, (value, without) in needs.items():
        if value != without and not ctc_weight:
            raise UserError(
                f"model_conf: ctc_guide_{name} {value} needs CTC: set ctc_weight "
                f"greater than 0, or ctc_guide_{name} to {without}"
            )
    is_used = weight or scaling == "segments"
    schedule = CommonOptions(start=start if is_used else 0)
    return CTCGuide(weight, kind, slack, scaling, firing, threshold, schedule)
