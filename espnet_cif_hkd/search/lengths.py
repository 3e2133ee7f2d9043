"""The decoder chooses the number of tokens.

Alpha, or CTC's spikes, say how many tokens fire. This is the weak place of CIF: a word
that is spoken fast may not fire. The decoder, which knows the language, reads the
vectors of a few more and a few fewer tokens, and its likeliest sentence decides.

Shapes and names: as in :mod:`espnet_cif_hkd.decoder.cif_decoder`, and

===  =====================================================================
R    candidates of all utterances; each is a number of tokens
===  =====================================================================
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.cif.segments import utterance_weights
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.firing_options import checked_options
from espnet_cif_hkd.search.greedy import GreedyHypothesis, greedy_search
from espnet_cif_hkd.search.length_score import length_score

# At least so many candidates are searched together, also for one utterance.
_TOGETHER = 16

# Whether a value is right, and what it must be.
_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "slack": (
        lambda value: type(value) is int and value >= 1,
        "a number of tokens, an integer >= 1; length_conf: null tries no other number",
    ),
    "bonus": (
        lambda value: (
            value is None or (type(value) in (int, float) and math.isfinite(value))
        ),
        "a number, or null for the mean of the log-probabilities",
    ),
}

Search = Callable[[Tensor, Tensor, Tensor], list[GreedyHypothesis]]


@dataclasses.dataclass(frozen=True)
class LengthSearch:
    """Chooses the number of fired tokens by the score of the decoder's greedy search.

    The score of a sentence is the mean of the log-probabilities of its tokens and of
    ``<eos>``: their sum would prefer short sentences. With a bonus it is their sum and
    the bonus for each token. If several are equal, the number nearest to that of alpha
    wins. A sentence without tokens is only chosen if none fires by itself: ``<eos>``
    alone is almost always likely.

    Attributes:
        slack: The largest difference from the number that fires by itself, in tokens.
        bonus: Added for each token, a log-probability; None: the mean decides.

    Source: ours. One-pass decoders choose among lengths in the same way (Mask-Predict,
    arXiv 1904.09324).
    """

    slack: int = 3
    bonus: float | None = None

    @torch.no_grad()
    def best(
        self, decoder: CIFDecoder, hs_pad: Tensor, hlens: Tensor, search: Search
    ) -> list[GreedyHypothesis]:
        """Search the candidates of each utterance; return what :meth:`choose` chooses.

        Args:
            decoder: What fires, in ``eval`` mode.
            hs_pad: Encoder frames, ``(B, T, D)``.
            hlens: Valid frames, ``(B,)``.
            search: Greedy search of frames ``(R, T, D)``, valid frames ``(R,)`` and the
                weights that fire, ``(R, T)``.

        Returns:
            One hypothesis for each utterance, with its weights.
        """
        owners, weights = self._candidates(decoder, hs_pad, hlens)
        candidates: list[list[GreedyHypothesis]] = [[] for _ in hs_pad]
        together = max(len(hs_pad), _TOGETHER)
        for first in range(0, len(owners), together):
            rows = owners[first : first + together]
            some = weights[first : first + together]
            at = rows.to(hs_pad.device)
            found = search(hs_pad.index_select(0, at), hlens.cpu()[rows], some)
            for owner, one, fired in zip(rows.tolist(), found, some, strict=True):
                if length_of(one) or not candidates[owner]:
                    one = dataclasses.replace(one, weights=fired)
                    candidates[owner].append(one)
        return [self.choose(each) for each in candidates]

    def choose(self, candidates: Sequence[GreedyHypothesis]) -> GreedyHypothesis:
        """Return the best of an utterance's candidates; the first fires by itself."""
        scores = [
            length_score(one.score, length_of(one), self.bonus) for one in candidates
        ]
        return candidates[scores.index(max(scores))]

    def weights(self, decoder: CIFDecoder, hs_pad: Tensor, hlens: Tensor) -> Tensor:
        """Return the weights of the best candidates, ``(B, T)`` float64."""
        found = greedy_search(decoder, hs_pad, hlens)
        chosen = [one.weights for one in found if one.weights is not None]
        return torch.stack(chosen)

    def _candidates(
        self, decoder: CIFDecoder, hs_pad: Tensor, hlens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Utterance of each candidate ``(R,)``, on the CPU, and its weights ``(R, T)``.

        The first one of an utterance is what fires by itself; the others follow by
        distance.
        """
        hlens = hlens.to(hs_pad.device)
        fired = decoder.fire(hs_pad, hlens)
        if decoder.ctc_firing is None:
            steps = torch.arange(1, self.slack + 1, device=hs_pad.device)
            changes = torch.stack([-steps, steps], dim=1).flatten()  # -1, 1, -2, 2, …
            counts = fired.lengths[:, None] + changes  # (B, 2 · slack)
            wanted = (counts > 0) & (fired.lengths[:, None] > 0)
            wanted = wanted & (counts <= hlens[:, None])
            each = [utterance_weights(fired.unscaled, n) for n in counts.unbind(1)]
            others = torch.stack(each, dim=1)
        else:
            alpha = decoder.predictor(hs_pad, hlens)
            others, wanted = decoder.ctc_firing.others(
                alpha, hs_pad, hlens, fired.lengths, self.slack
            )
        weights = torch.cat([fired.alpha[:, None], others], dim=1)
        wanted = torch.nn.functional.pad(wanted, (1, 0), value=True).cpu()
        owners, places = wanted.nonzero(as_tuple=True)
        at = weights.device
        return owners, weights[owners.to(at), places.to(at)]


def length_of(hypothesis: GreedyHypothesis) -> int:
    """Return the number of tokens, without ``<sos>`` and ``<eos>``."""
    return len(hypothesis.yseq) - 2


@contextmanager
def choosing(decoder: Any, search: LengthSearch | None) -> Iterator[None]:
    """Let a decoder choose in another way for a while; None: it does not choose.

    Args:
        decoder: Any decoder; one that does not fire is not changed.
        search: What chooses.
    """
    if not isinstance(decoder, CIFDecoder):
        yield
        return
    before, decoder.length_search = decoder.length_search, search
    try:
        yield
    finally:
        decoder.length_search = before


def build_length_search(conf: Mapping[str, Any] | None) -> LengthSearch | None:
    """Return what ``model_conf.length_conf`` describes; None: nothing.

    Raises:
        UserError: An option is unknown or wrong.
    """
    if conf is None:
        return None
    return LengthSearch(**checked_options(conf, "model_conf: length_conf", _OPTIONS))
