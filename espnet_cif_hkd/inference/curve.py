"""CIF's weights and firings over time, for pictures."""

from dataclasses import dataclass

import numpy as np
import torch

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.inference.results import Frames


@dataclass(frozen=True)
class Curve:
    """What CIF computes for one utterance.

    Attributes:
        edges: Borders of the frames in seconds, ``(T + 1,)``.
        alpha: Weight of each frame, ``(T,)``.
        firings: Times of the firings in seconds, ``(L,)``.
    """

    edges: np.ndarray
    alpha: np.ndarray
    firings: np.ndarray


@torch.no_grad()
def curve_of(decoder: CIFDecoder, frames: Frames) -> Curve:
    """Integrate the frames of an utterance and return weights and firings."""
    n = len(frames.hidden)
    lengths = torch.tensor([n], device=frames.hidden.device)
    hs_pad = frames.hidden[None]
    weights = decoder.search_weights(hs_pad, lengths)
    fired = decoder.integrate(weights, hs_pad, lengths)
    firings = fired.firing_times[0, : int(fired.lengths[0])]
    seconds = frames.times.seconds
    return Curve(
        seconds(torch.arange(n + 1), frames.duration).numpy(),
        fired.alpha[0, :n].float().cpu().numpy(),
        seconds(firings, frames.duration).cpu().numpy(),
    )
