"""Firing at the spikes of CTC, without a transcript or with one.

Names of shapes: as in :mod:`espnet_cif_hkd.decoder.cif_decoder`.
"""

from typing import Any

from torch import Tensor

from espnet_cif_hkd.cif.segments import dense_segment_weights, segment_weights
from espnet_cif_hkd.losses.ctc_guide import ctc_spikes
from espnet_cif_hkd.losses.ctc_path import ctc_free_spikes, dense_free_spikes


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
        if self.dense:
            is_spike = dense_free_spikes(logp, hlens, self.blank, self.threshold)
            return dense_segment_weights(alpha, hlens, is_spike)
        spikes, lengths = ctc_free_spikes(logp, hlens, self.blank, self.threshold)
        return segment_weights(alpha, hlens, spikes, lengths + 1)

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
