"""Input layers of ``cif_conformer``, from features to the first block.

Each multiplies by √d, as ESPnet's positional encoding does. The encoder itself handles
the relative positions; they are not added to the frames.
"""

import math
from typing import Any

import torch

from espnet_cif_hkd.encoder.frames import INPUT_WINDOWS, PAPER_INPUT, frames_after
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import (
    Conv2dSubsampling,
    Conv2dSubsampling1,
    Conv2dSubsampling2,
    Conv2dSubsampling6,
    Conv2dSubsampling8,
)

_SUBSAMPLING: dict[str, Any] = {
    "conv2d": Conv2dSubsampling,
    "conv2d1": Conv2dSubsampling1,
    "conv2d2": Conv2dSubsampling2,
    "conv2d6": Conv2dSubsampling6,
    "conv2d8": Conv2dSubsampling8,
}
INPUT_LAYERS = (PAPER_INPUT, *_SUBSAMPLING, "linear", None)


class Scale(torch.nn.Module):
    """Multiply by √d."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.factor = math.sqrt(size)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """Scale ``xs (…, d)``."""
        return xs * self.factor


class Conv2dStride2(torch.nn.Module):
    """The paper's input layer: one convolution that halves the frame rate.

    Conv2d, ReLU, Linear, multiplication by √d, Linear, dropout. Parameter names differ
    from ESPnet's, so that no weights of another layer are loaded.

    Args:
        input_size: F, size of a feature frame; at least three.
        output_size: d.
        channels: Channels of the convolution.
        dropout_rate: Dropout of the output.

    Source: the encoder of the code of arXiv 2301.13003.
    """

    def __init__(
        self, input_size: int, output_size: int, channels: int, dropout_rate: float
    ) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, channels, 3, 2)
        self.linear = torch.nn.Linear(channels * ((input_size - 1) // 2), output_size)
        self.scale = Scale(output_size)
        self.project = torch.nn.Linear(output_size, output_size)
        self.dropout = torch.nn.Dropout(dropout_rate)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """From features ``(B, T, F)`` to ``(B, (T - 1) // 2, d)``."""
        xs = torch.relu(self.conv(xs.unsqueeze(1)))  # (B, C, T', F')
        xs = self.linear(xs.transpose(1, 2).flatten(2))  # (B, T', d)
        return self.dropout(self.project(self.scale(xs)))


def build_front_end(
    input_layer: str | None,
    input_size: int,
    output_size: int,
    channels: int,
    dropout_rate: float,
    positional_dropout_rate: float,
) -> torch.nn.Module:
    """Build an input layer by its name; ESPnet's have ESPnet's parameter names.

    Args:
        input_layer: One of ``INPUT_LAYERS``.
        input_size: F.
        output_size: d.
        channels: Channels of the paper's convolution; ESPnet's have d.
        dropout_rate: Dropout of the paper's layer and of ``linear``.
        positional_dropout_rate: Dropout of the output of ESPnet's layers.

    Raises:
        UserError: If the name is unknown or the features are too small for it.
    """
    if input_layer not in INPUT_LAYERS:
        names = ", ".join(str(name) for name in INPUT_LAYERS if name)
        raise UserError(
            f"encoder_conf: cif_conformer has no input_layer {input_layer!r}; choose "
            f"one of {names}, null"
        )
    # The convolutions have the same windows over features as over time.
    if frames_after(input_size, INPUT_WINDOWS[input_layer]) < 1:
        raise UserError(
            f"encoder_conf: features of size {input_size} are too small for "
            f"input_layer {input_layer}; use more mel bands or input_layer: linear"
        )
    if input_layer == PAPER_INPUT:
        return Conv2dStride2(input_size, output_size, channels, dropout_rate)
    scale = torch.nn.Sequential(
        Scale(output_size), torch.nn.Dropout(positional_dropout_rate)
    )
    if input_layer == "linear":
        return torch.nn.Sequential(
            torch.nn.Linear(input_size, output_size),
            torch.nn.LayerNorm(output_size),
            torch.nn.Dropout(dropout_rate),
            scale,
        )
    if input_layer is None:
        if input_size != output_size:
            raise UserError(
                f"encoder_conf: with input_layer: null features of size {input_size} "
                f"must be of output_size {output_size}; use input_layer: linear"
            )
        return scale
    return _SUBSAMPLING[input_layer](input_size, output_size, dropout_rate, scale)


def apply_front_end(embed: torch.nn.Module, xs: torch.Tensor) -> torch.Tensor:
    """Apply an input layer of :func:`build_front_end`.

    Args:
        embed: The module.
        xs: Features, ``(B, T, F)``.

    Returns:
        ``(B, T', d)``, without a mask: ESPnet 202511 computes lengths from the longest
        utterance, so that shorter ones include padding.
    """
    if isinstance(embed, tuple(_SUBSAMPLING.values())):
        xs, _ = embed(xs, None)
        return xs
    return embed(xs)


def rename_for_this_release(
    embed: torch.nn.Module, state_dict: dict[str, Any], prefix: str
) -> None:
    """Rename parameters of ESPnet's convolutions to the names of this release.

    The last Linear is ``out.0`` in 202511 (``out`` in ``conv2d8``), ``out`` in 202611.
    ``load_pretrained_model`` adds the current values of all parameters to those of the
    file; with a file of 202511, ESPnet 202611 would then keep the current ones.

    Args:
        embed: The input layer.
        state_dict: Parameters to load; changed in place.
        prefix: Prefix of the keys of the input layer.
    """
    if not isinstance(embed, tuple(_SUBSAMPLING.values())):
        return
    own, other = "out.", "out.0."
    if isinstance(embed.out, torch.nn.Sequential):
        own, other = other, own
    for name in ("weight", "bias"):
        if f"{prefix}{other}{name}" in state_dict:
            value = state_dict.pop(f"{prefix}{other}{name}")
            state_dict[f"{prefix}{own}{name}"] = value
