"""Outputs of single encoder layers."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError


@dataclass
class LayerOutputs:
    """Outputs of encoder layers, by the layer's number from 1.

    Attributes:
        layers: (B, T_n, D).
        lengths: Valid frames, (B,) int64.
    """

    layers: dict[int, Tensor] = field(default_factory=dict)
    lengths: dict[int, Tensor] = field(default_factory=dict)


def layer_count(encoder: Any) -> int:
    """Return the number of layers of an encoder that can be tapped; 0 if none can.

    The encoder must have ESPnet's list ``encoders``, whose layers take and return
    complete utterances with their mask: transformer, conformer, (e-)branchformer and
    ``cif_conformer``. Layers that training drops at random cannot be tapped.
    """
    layers = getattr(encoder, "encoders", None)
    blocks = hasattr(encoder, "block_size")  # contextual encoders process blocks
    dropped = any(getattr(place, "layer_drop_rate", 0.0) for place in (encoder, layers))
    if not isinstance(layers, torch.nn.ModuleList | torch.nn.Sequential):
        return 0
    return 0 if blocks or dropped else len(layers)


@contextlib.contextmanager
def tapped_layers(encoder: Any, numbers: Sequence[int]) -> Iterator[LayerOutputs]:
    """Keep the outputs of some encoder layers while the encoder runs.

    Args:
        encoder: An encoder whose :func:`layer_count` includes these layers.
        numbers: Numbers of the layers, from 1.
    """
    outputs = LayerOutputs()
    if not numbers:
        yield outputs
        return
    handles = []
    try:
        for number in numbers:
            layer = encoder.encoders[number - 1]

            def keep(
                module: torch.nn.Module,
                given: tuple[Any, ...],
                made: Any,
                number: int = number,
            ) -> None:
                outputs.layers[number], outputs.lengths[number] = _frames(
                    number, given, made
                )

            handles.append(layer.register_forward_hook(keep))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _frames(number: int, given: tuple[Any, ...], made: Any) -> tuple[Tensor, Tensor]:
    """Return the frames of a layer, (B, T_n, D), and their valid numbers, (B,).

    ESPnet's layers return frames, or a pair of frames and positions, and the mask.
    Layers of ``cif_conformer`` return frames and take the mask as last argument.
    """
    frames, mask = made if isinstance(made, tuple) else (made, given[-1])
    if isinstance(frames, tuple):
        frames = frames[0]
    fits = (
        isinstance(mask, Tensor)
        and frames.dim() == 3
        and mask.shape == (frames.size(0), 1, frames.size(1))
    )
    if not fits:
        raise UserError(
            f"layer:{number}: this encoder's layers do not return complete utterances "
            "and their mask; use the tap hs_pad instead"
        )
    return frames, mask.squeeze(1).sum(1)
