"""Outputs of single encoder layers, and the times of their frames."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill.taps import FrameTiming
from espnet_cif_hkd.encoder.frames import INPUT_WINDOWS, POOLING, Windows
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin import compat

# ESPnet's input layers by class name.
_ESPNET_INPUTS = {
    compat.Conv2dSubsampling: "conv2d",
    compat.Conv2dSubsampling1: "conv2d1",
    compat.Conv2dSubsampling2: "conv2d2",
    compat.Conv2dSubsampling6: "conv2d6",
    compat.Conv2dSubsampling8: "conv2d8",
}


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


def frame_timing(
    frontend: Any, encoder: Any, numbers: Iterable[int]
) -> dict[str, FrameTiming]:
    """Return the times of the frames of ``hs_pad`` and of encoder layers.

    Args:
        frontend: A frontend; the timing is known for ESPnet's ``default`` only.
        encoder: The encoder; its input layer and the pooling of ``cif_conformer``
            decide.
        numbers: Numbers of the layers, from 1.

    Returns:
        Timing by the name of the tap; empty if it is unknown. A frame of a centred
        spectrum or of a convolution is in the middle of its window.
    """
    windows = _input_windows(encoder)
    stft = getattr(frontend, "stft", None)
    rate = getattr(getattr(frontend, "logmel", None), "mel_options", {}).get("sr")
    if windows is None or stft is None or not rate:
        return {}
    first = 0 if stft.center else stft.n_fft / 2
    offset, stride = first / rate, stft.hop_length / rate
    pooling = sorted(getattr(encoder, "pooling_layers", ()))

    def after(poolings: int) -> FrameTiming:
        start, step = offset, stride
        for width, factor in windows + POOLING * poolings:
            start += (width - 1) / 2 * step
            step *= factor
        return FrameTiming(start, step)

    timing = {
        f"layer:{number}": after(sum(place < number for place in pooling))
        for number in numbers
    }
    return {"hs_pad": after(len(pooling)), **timing}


def _input_windows(encoder: Any) -> Windows | None:
    """Return the windows of an encoder's input layer; None if it is unknown."""
    if encoder is None:
        return None
    if hasattr(encoder, "input_layer"):  # cif_conformer
        return INPUT_WINDOWS.get(encoder.input_layer)
    embed = getattr(encoder, "embed", None)
    if embed is None or type(embed) is torch.nn.Sequential:
        return ()
    name = _ESPNET_INPUTS.get(type(embed))
    return None if name is None else INPUT_WINDOWS[name]
