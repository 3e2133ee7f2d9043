"""What ESPnet's searches and ours call of a CIF decoder.

Names of shapes: as in :mod:`espnet_cif_hkd.decoder.cif_decoder`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import torch

from espnet_cif_hkd.cif import CIFOutput, integrate_and_fire
from espnet_cif_hkd.decoder.ending import mask_by_fired_length
from espnet_cif_hkd.decoder.layer import causal_mask
from espnet_cif_hkd.decoder.near import Near
from espnet_cif_hkd.decoder.search_state import (
    BLOCKS,
    FiredTokens,
    HypothesisState,
    KeyValuePool,
    Scored,
    gathered,
    ready_for_search,
)
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import BatchScorerInterface


class ChoosesLength(Protocol):
    """What :class:`espnet_cif_hkd.search.lengths.LengthSearch` does."""

    def best(self, decoder: Any, hs_pad: Any, hlens: Any, search: Any) -> list[Any]:
        """Return the best hypothesis of each utterance."""

    def weights(self, decoder: Any, hs_pad: Any, hlens: Any) -> torch.Tensor:
        """Return the weights of the best hypotheses."""


class SearchScores(BatchScorerInterface):
    """ESPnet's interface of a scorer.

    The vectors of an utterance fire once, before its search. The attributes are those
    of :class:`~espnet_cif_hkd.decoder.cif_decoder.CIFDecoder`.
    """

    eos: int
    eos_slack: int
    layers: torch.nn.ModuleList
    tail_threshold: float | None
    length_search: ChoosesLength | None
    fire: Callable[..., CIFOutput]
    weights: Callable[..., torch.Tensor]
    near_frames: Callable[..., Near | None]
    extend: Callable[..., torch.Tensor]

    def init_state(self, x: torch.Tensor) -> HypothesisState:
        """Fire the tokens of one utterance, ``x (T, D)``, before a search."""
        return self.batch_init_state(x)

    def batch_init_state(
        self, x: torch.Tensor, xs_lengths: torch.Tensor | None = None
    ) -> HypothesisState:
        """Fire the tokens of one utterance or of a batch, once, before a search.

        Args:
            x: Encoder frames, ``(T, D)`` or ``(B, T, D)``.
            xs_lengths: Number of valid frames of a batch, ``(B,)``; None: all.

        Returns:
            The initial state of every hypothesis.
        """
        fired = self._fire_once(x, xs_lengths)
        return HypothesisState(fired, KeyValuePool(len(self.layers)))

    def _fire_once(
        self, x: torch.Tensor, xs_lengths: torch.Tensor | None
    ) -> FiredTokens:
        """Fire before a search; arguments are those of :meth:`batch_init_state`."""
        hs_pad = x if x.dim() == 3 else x.unsqueeze(0)
        if xs_lengths is None:
            xs_lengths = torch.full((hs_pad.size(0),), hs_pad.size(1))
        return self.fire_freely(hs_pad, xs_lengths)

    def fire_freely(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        target_lengths: torch.Tensor | None = None,
    ) -> FiredTokens:
        """As :meth:`fire`, for a search, with warnings about unusual lengths.

        Raises:
            UserError: If alpha of an utterance is not finite.
        """
        if self.length_search is not None and target_lengths is None:
            return self.fire_by(self.search_weights(hs_pad, hlens), hs_pad, hlens)
        fired = self.fire(hs_pad, hlens.to(hs_pad.device), target_lengths)
        return self._ready(fired, hs_pad, hlens)

    def search_weights(self, hs_pad: torch.Tensor, hlens: torch.Tensor) -> torch.Tensor:
        """Return the weights that fire in a search, ``(B, T)``.

        Args:
            hs_pad: Encoder frames, ``(B, T, D)``.
            hlens: Valid frames, ``(B,)``.
        """
        if self.length_search is None:
            return self.weights(hs_pad, hlens.to(hs_pad.device))
        return self.length_search.weights(self, hs_pad, hlens)

    def fire_by(
        self, weights: torch.Tensor, hs_pad: torch.Tensor, hlens: torch.Tensor
    ) -> FiredTokens:
        """As :meth:`fire_freely`, with given weights ``(B, T)``."""
        return self._ready(self.integrate(weights, hs_pad, hlens), hs_pad, hlens)

    def integrate(
        self, weights: torch.Tensor, hs_pad: torch.Tensor, hlens: torch.Tensor
    ) -> CIFOutput:
        """As :meth:`fire` in a search, with given weights ``(B, T)``."""
        lengths = hlens.to(hs_pad.device)
        return integrate_and_fire(
            hs_pad, weights, lengths, tail_threshold=self.tail_threshold
        )

    def _ready(
        self, fired: CIFOutput, hs_pad: torch.Tensor, hlens: torch.Tensor
    ) -> FiredTokens:
        near = self.near_frames(hs_pad, hlens, fired)
        return dataclasses.replace(ready_for_search(fired, hlens), near=near)

    def score(
        self, ys: torch.Tensor, state: HypothesisState, x: torch.Tensor
    ) -> tuple[torch.Tensor, HypothesisState]:
        """Score the next token of one hypothesis, ``ys (i + 1,)``: ``(V,)``."""
        logp, states = self.batch_score(ys[None], [state], x[None])
        return logp.squeeze(0), states[0]

    def batch_score(
        self,
        ys: torch.Tensor,
        states: list[HypothesisState],
        xs: torch.Tensor,
        xs_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[HypothesisState]]:
        """Score the next token of N hypotheses.

        Args:
            ys: Prefixes, ``<sos>`` first, ``(N, i + 1)`` int64.
            states: One state per hypothesis.
            xs, xs_mask: Not used: the vectors are fired already.

        Returns:
            Log-probabilities under the ending rule, ``(N, V)``, and N states.
        """
        fired, pool = states[0].fired, states[0].pool
        n_hyp, n_tokens = ys.shape
        before = gathered(states)
        n_before = before.rows.size(1)
        n_new = n_tokens - n_before
        rows = torch.cat([before.rows, pool.claim(n_hyp, n_new, ys.device)], dim=1)

        steps = torch.arange(n_before, n_tokens, device=ys.device)
        several = fired.embeddings.size(0) > 1
        owners = before.owners.to(ys.device) if several else None
        current, previous = fired.at(steps, owners)
        logits = self.extend(
            ys[:, n_before:],
            previous,
            current[:, -1],
            n_before,
            lambda layer, keys, values: pool.exchange(layer, rows, keys, values),
            # one new token, the last, attends to all tokens
            None if n_new == 1 else causal_mask(n_new, n_tokens, ys.device),
            fired.near_at(steps, owners),
        )
        logp = mask_by_fired_length(
            torch.log_softmax(logits, dim=-1),
            n_tokens - 1,
            fired.lengths[before.owners],
            self.eos,
            self.eos_slack,
        )
        scored = Scored(before.owners, rows)
        return logp, [HypothesisState(fired, pool, scored, n) for n in range(n_hyp)]

    def extend_prob(self, x: torch.Tensor) -> None:
        """Refuse block by block decoding: firing would end with the first block."""
        raise UserError(BLOCKS)
