"""The options ``ctc_guide_*`` of ``model: cif``."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.distill.schedule import CommonOptions
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.ctc_guide import ctc_guide_loss, ctc_spike_loss, ctc_spikes

KINDS = ("sum", "spikes")


@dataclass(frozen=True)
class CTCGuide:
    """How CTC guides the firing.

    Attributes:
        weight: Of the loss; 0: there is no guide.
        kind: ``sum``: :func:`ctc_guide_loss`; ``spikes``: :func:`ctc_spike_loss`.
        slack: Of ``sum``, in tokens.
        schedule: Its first update.
    """

    weight: float
    kind: str
    slack: float
    schedule: CommonOptions

    def loss(
        self,
        logp: torch.Tensor,
        fired: CIFOutput,
        ys_pad: torch.Tensor,
        ys_lens: torch.Tensor,
        blank: int,
    ) -> torch.Tensor:
        """Return the loss, a sum over tokens, without its weight.

        Args:
            logp: CTC's log-probabilities, ``(B, T, V)``, without a gradient.
            fired: Vectors fired for known tokens.
            ys_pad: Tokens, ``(B, U)``.
            ys_lens: Their numbers, ``(B,)``.
            blank: Index of the blank.
        """
        spikes = ctc_spikes(logp, fired.frame_lengths, ys_pad, ys_lens, blank)
        if self.kind == "sum":
            return ctc_guide_loss(fired.alpha, spikes, self.slack)
        total = fired.alpha.sum(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        unscaled = fired.alpha * (fired.quantity / total)[:, None]
        return ctc_spike_loss(unscaled, spikes)


def build_guide(
    ctc_weight: float, weight: Any, kind: Any, slack: Any, start: Any
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
    if kind not in KINDS:
        raise UserError(
            f"model_conf: ctc_guide_kind is {kind!r}; it must be {' or '.join(KINDS)}"
        )
    if type(start) is not int or start < 0:
        raise UserError(
            f"model_conf: ctc_guide_start is {start!r}; it must be a number of "
            "optimizer updates, an integer >= 0"
        )
    if weight and not ctc_weight:
        raise UserError(
            "model_conf: ctc_guide_weight needs CTC: set ctc_weight greater than "
            "0, or ctc_guide_weight to 0"
        )
    schedule = CommonOptions(start=start if weight else 0)
    return CTCGuide(weight, kind, slack, schedule)
