"""Firing at the spikes of CTC, without a transcript or with one.

Names of shapes: as in :mod:`espnet_cif_hkd.decoder.cif_decoder`.
"""

from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.cif.segments import dense_segment_weights, segment_weights
from espnet_cif_hkd.losses.ctc_guide import ctc_spikes
from espnet_cif_hkd.losses.ctc_path import ctc_free_spikes, dense_free_spikes

# Of CTC's probability of a token, for a search that tries several numbers of tokens.
THRESHOLDS = (0.4, 0.5, 0.3, 0.6, 0.2, 0.7, 0.15, 0.8, 0.1)


class CTCFiring:
    """Scales alpha to 1 between CTC's spikes, so that a token fires at each of them.

    Alpha then only weighs the frames of a token. ``<eos>`` fires at the end.

    Args:
        ctc: ESPnet's CTC on the encoder frames.
        blank: Index of the blank.
        threshold: Of :func:`ctc_free_spikes`.

    Attributes:
        dense: Whether to compute with operations that exported graphs have.

    Source: ours. Paraformer-v2 (arXiv 2409.17746) also takes one vector for each token
    of CTC's best path, the mean of its probabilities, and has no alpha.
    """

    def __init__(self, ctc: Any, blank: int, threshold: float | None = None) -> None:
        self.ctc, self.blank, self.dense = ctc, blank, False
        self.threshold = threshold

    def weights(self, alpha: Tensor, hs_pad: Tensor, hlens: Tensor) -> Tensor:
        """Return alpha that fires at the spikes of CTC's best path.

        Args:
            alpha: Of the predictor, ``(B, T)``.
            hs_pad: Encoder frames, ``(B, T, D)``.
            hlens: Valid frames, ``(B,)``.

        Returns:
            ``(B, T)`` float64. Its sum is the number of tokens, ``<eos>`` included. An
            utterance with a spike in each of its last frames keeps its alpha.
        """
        logp = self.ctc.log_softmax(hs_pad)
        return self._weights(alpha, logp, hlens, self.threshold)[0]

    def _weights(
        self, alpha: Tensor, logp: Tensor, hlens: Tensor, threshold: float | None
    ) -> tuple[Tensor, Tensor]:
        """Weights ``(B, T)``, and the number of tokens that shall fire, ``(B,)``."""
        if self.dense:
            is_spike = dense_free_spikes(logp, hlens, self.blank, threshold)
            weights = dense_segment_weights(alpha, hlens, is_spike)
            return weights, is_spike.long().sum(dim=1) + 1
        spikes, lengths = ctc_free_spikes(logp, hlens, self.blank, threshold)
        return segment_weights(alpha, hlens, spikes, lengths + 1), lengths + 1

    def thresholds(
        self, alpha: Tensor, logp: Tensor, hlens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return weights that fire at CTC's spikes, for each of ``THRESHOLDS``.

        Args:
            alpha: Of the predictor, ``(B, T)``.
            logp: CTC's log-probabilities, ``(B, T, V)``.
            hlens: Valid frames, ``(B,)``.

        Returns:
            Weights, ``(B, K, T)`` float64, and the number of tokens that fire,
            ``(B, K)``: 0 if a spike has no frame of its own, and nothing can be used.
        """
        found, numbers = [], []
        for threshold in THRESHOLDS:
            weights, lengths = self._weights(alpha, logp, hlens, threshold)
            wrong = (weights.sum(dim=1) - lengths).abs() > 0.5
            found.append(weights)
            numbers.append(lengths.masked_fill(wrong, 0))
        return torch.stack(found, dim=1), torch.stack(numbers, dim=1)

    def others(
        self,
        alpha: Tensor,
        hs_pad: Tensor,
        hlens: Tensor,
        counts: Tensor,
        slack: int,
    ) -> tuple[Tensor, Tensor]:
        """Return weights of other numbers of tokens: CTC's spikes by other thresholds.

        Args:
            alpha, hs_pad, hlens: See :meth:`weights`.
            counts: Tokens that fire by :meth:`weights`, ``(B,)``.
            slack: Largest difference from ``counts``.

        Returns:
            Weights, ``(B, K, T)`` float64, and whether they are one of at most ``2 ·
            slack`` other numbers of tokens, ``(B, K)`` bool. Nearer numbers are first.
        """
        logp = self.ctc.log_softmax(hs_pad)
        weights, numbers = self.thresholds(alpha, logp, hlens)
        change = numbers - counts[:, None]  # (B, K)
        change = change.masked_fill(numbers == 0, 0)
        same = change[:, :, None] == change[:, None]  # the same number as one before?
        before = torch.ones_like(same[0]).tril(-1)
        is_new = ~(same & before).any(dim=2) & (change != 0) & (change.abs() <= slack)
        order = change.abs().masked_fill(~is_new, slack + 1).argsort(dim=1, stable=True)
        rows = order[..., None].expand_as(weights)
        return weights.gather(1, rows), is_new.gather(1, order)

    def known_weights(
        self,
        alpha: Tensor,
        hs_pad: Tensor,
        hlens: Tensor,
        ys_pad: Tensor,
        ys_lens: Tensor,
    ) -> Tensor:
        """As :meth:`weights`, at the spikes of CTC's forced alignment.

        Args:
            alpha, hs_pad, hlens: See :meth:`weights`.
            ys_pad: Tokens without ``<eos>``, ``(B, U)`` int64.
            ys_lens: Their numbers, ``(B,)``.
        """
        logp = self.ctc.log_softmax(hs_pad)
        spikes = ctc_spikes(logp, hlens, ys_pad, ys_lens, self.blank)
        return segment_weights(alpha, hlens, spikes, ys_lens + 1)
