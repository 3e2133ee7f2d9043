"""The output of the CIF decoder in training."""

from dataclasses import dataclass

import torch

from espnet_cif_hkd.cif import CIFOutput


@dataclass
class CIFDecoderOutput:
    """Output of the decoder in training.

    Attributes:
        logits: ``(B, L, V)``.
        states: Decoder states joined with the fired vectors, before the output
            layer, ``(B, L, D)``.
        cif: Fired vectors, lengths, quantity and firing times.
        hidden: Decoder states after the last layer norm of the transformer, before
            they are joined, ``(B, L, D)``.
        scored: False for tokens that have no loss, ``(B, L)`` bool; None: all have.
    """

    logits: torch.Tensor
    states: torch.Tensor
    cif: CIFOutput
    hidden: torch.Tensor
    scored: torch.Tensor | None = None
