"""What a distillation criterion takes and gives."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

DecoderStates = Literal["joined", "transformer"]


@dataclass
class DistillOutput:
    """Result of a criterion.

    Attributes:
        losses: float32 scalars by name, sums over the tokens of the batch, without
            their weights.
        weights: the weight of each of them. The model adds
            ``weight * loss / number of tokens``.
        stats: other numbers for the log.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    stats: dict[str, Tensor | float] = field(default_factory=dict)


class AbsDistillCriterion(torch.nn.Module, ABC):
    """Teaches a CIF model something beside its transcripts; needed in training only.

    Attributes:
        decoder_states: Which ``states`` the model passes to :meth:`forward`:
            ``joined`` with the vector that fired for the token, as the output layer
            gets them, or those of the ``transformer`` before that. Both are
            ``state_size`` wide.
    """

    decoder_states: DecoderStates = "joined"

    @abstractmethod
    def forward(
        self,
        embeddings: Tensor,
        states: Tensor,
        lengths: Tensor,
        ys_pad: Tensor,
        ys_pad_lens: Tensor,
    ) -> DistillOutput:
        """Losses of one batch.

        Args:
            embeddings: (B, L, D) fired vectors.
            states: (B, L, D2) decoder states, those of ``decoder_states``.
            lengths: (B,) tokens of each utterance with ``<eos>``.
            ys_pad: (B, U) token ids without ``<eos>``, padded with -1.
            ys_pad_lens: (B,) ``lengths - 1``.
        """
