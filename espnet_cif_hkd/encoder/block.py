"""A conformer block whose convolution uses the padding mask."""

import torch

from espnet_cif_hkd.encoder.convolution import MaskedConvolutionModule
from espnet_cif_hkd.plugin.compat import (
    EncoderLayer,
    PositionwiseFeedForward,
    RelPositionMultiHeadedAttention,
    get_activation,
)


class ConformerBlock(EncoderLayer):  # type: ignore[misc]
    """ESPnet's conformer layer with its modules and names, pre-norm, and a mask.

    Args:
        size: D.
        attention_heads: Heads of relative-position self-attention; must divide D.
        linear_units: Width of the feed-forward modules.
        dropout_rate: Dropout of residuals and inside the feed-forward modules.
        attention_dropout_rate: Dropout of attention weights.
        activation_type: ESPnet's name of the activation.
        macaron_style: Whether a second feed-forward module with the factor 1/2 comes
            first.
        cnn_module_kernel: Width of the depth-wise convolution in frames.
        cnn_module_bias: Whether the convolutions have biases.

    Source: the encoder of the code of arXiv 2301.13003.
    """

    def __init__(
        self,
        size: int,
        attention_heads: int,
        linear_units: int,
        dropout_rate: float,
        attention_dropout_rate: float,
        activation_type: str,
        macaron_style: bool,
        cnn_module_kernel: int,
        cnn_module_bias: bool,
    ) -> None:
        # torch's SiLU is one operation; ESPnet's swish is two and needs more memory.
        activation = (
            torch.nn.SiLU()
            if activation_type == "swish"
            else get_activation(activation_type)
        )
        feed_forward = (size, linear_units, dropout_rate, activation)
        super().__init__(
            size,
            RelPositionMultiHeadedAttention(
                attention_heads, size, attention_dropout_rate
            ),
            PositionwiseFeedForward(*feed_forward),
            PositionwiseFeedForward(*feed_forward) if macaron_style else None,
            MaskedConvolutionModule(
                size, cnn_module_kernel, activation, cnn_module_bias
            ),
            dropout_rate,
        )

    def forward(
        self, xs: torch.Tensor, pos_emb: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Transform the frames.

        Args:
            xs: ``(B, T, D)``.
            pos_emb: Relative positions from T - 1 to 1 - T, ``(1, 2 T - 1, D)``.
            mask: True at valid frames, ``(B, 1, T)`` bool.

        Returns:
            ``(B, T, D)``.
        """
        if self.feed_forward_macaron is not None:
            ys = self.feed_forward_macaron(self.norm_ff_macaron(xs))
            xs = xs + self.ff_scale * self.dropout(ys)
        ys = self.norm_mha(xs)
        xs = xs + self.dropout(self.self_attn(ys, ys, ys, pos_emb, mask))
        xs = xs + self.dropout(self.conv_module(self.norm_conv(xs), mask))
        ys = self.feed_forward(self.norm_ff(xs))
        return self.norm_final(xs + self.ff_scale * self.dropout(ys))
