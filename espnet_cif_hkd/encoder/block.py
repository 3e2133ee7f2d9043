"""A conformer block whose convolution uses the padding mask."""

from dataclasses import dataclass

import torch

from espnet_cif_hkd.encoder.attention import ChunkAttention
from espnet_cif_hkd.encoder.chunks import SectionChunks
from espnet_cif_hkd.encoder.convolution import MaskedConvolutionModule
from espnet_cif_hkd.plugin.compat import (
    EncoderLayer,
    PositionwiseFeedForward,
    get_activation,
)


@dataclass(frozen=True)
class BlockCache:
    """What a block keeps of earlier chunks.

    Attributes:
        keys: Keys of the earlier frames that attention sees, ``(B, H, P, d_k)``.
        values: Their values, as ``keys``.
        convolution: Input of the depth-wise convolution at the last earlier frames,
            ``(B, D, left_frames)``.
    """

    keys: torch.Tensor
    values: torch.Tensor
    convolution: torch.Tensor


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
        causal_convolution: Whether the depth-wise convolution sees no later frame.

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
        causal_convolution: bool = False,
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
            ChunkAttention(attention_heads, size, attention_dropout_rate),
            PositionwiseFeedForward(*feed_forward),
            PositionwiseFeedForward(*feed_forward) if macaron_style else None,
            MaskedConvolutionModule(
                size,
                cnn_module_kernel,
                activation,
                cnn_module_bias,
                causal_convolution,
            ),
            dropout_rate,
        )

    def forward(
        self,
        xs: torch.Tensor,
        pos_emb: torch.Tensor,
        mask: torch.Tensor,
        *,
        chunks: SectionChunks | None = None,
    ) -> torch.Tensor:
        """Transform the frames.

        Args:
            xs: ``(B, T, D)``.
            pos_emb: Relative positions from T - 1 to 1 - T, ``(1, 2 T - 1, D)``.
            mask: True at valid frames, ``(B, 1, T)`` bool.
            chunks: Chunks that limit what a frame sees; None: there are none.

        Returns:
            ``(B, T, D)``.
        """
        visible, size = (
            (mask, None) if chunks is None else (chunks.visible, chunks.size)
        )
        xs = self._begin(xs)
        ys = self.norm_mha(xs)
        xs = xs + self.dropout(self.self_attn(ys, ys, ys, pos_emb, visible))
        xs = xs + self.dropout(self.conv_module(self.norm_conv(xs), mask, size))
        return self._end(xs)

    def forward_chunk(
        self,
        xs: torch.Tensor,
        pos_emb: torch.Tensor,
        mask: torch.Tensor,
        cache: BlockCache,
    ) -> tuple[torch.Tensor, BlockCache]:
        """Transform the frames of one chunk.

        Args:
            xs: Frames of the chunk, ``(B, T, D)``.
            pos_emb: Relative positions from P + T - 1 to 1 - T, ``(1, P + 2 T - 1,
                D)``.
            mask: True at valid frames, those of ``cache`` first, ``(B, 1, P + T)``
                bool.
            cache: What the earlier chunks left.

        Returns:
            ``(B, T, D)``, and the cache with the P + T frames.
        """
        xs = self._begin(xs)
        ys, keys, values = self.self_attn.forward_chunk(
            self.norm_mha(xs), pos_emb, mask, cache.keys, cache.values
        )
        xs = xs + ys
        ys, before = self.conv_module.forward_chunk(
            self.norm_conv(xs), mask[:, :, -xs.size(1) :], cache.convolution
        )
        return self._end(xs + ys), BlockCache(keys, values, before)

    def empty_cache(self, xs: torch.Tensor) -> BlockCache:
        """Return the cache before the first chunk, for features ``xs (B, …)``."""
        heads, width = self.self_attn.h, self.self_attn.d_k
        none = xs.new_zeros(xs.size(0), heads, 0, width)
        n_left = self.conv_module.left_frames
        return BlockCache(none, none, xs.new_zeros(xs.size(0), heads * width, n_left))

    def _begin(self, xs: torch.Tensor) -> torch.Tensor:
        if self.feed_forward_macaron is not None:
            ys = self.feed_forward_macaron(self.norm_ff_macaron(xs))
            xs = xs + self.ff_scale * self.dropout(ys)
        return xs

    def _end(self, xs: torch.Tensor) -> torch.Tensor:
        ys = self.feed_forward(self.norm_ff(xs))
        return self.norm_final(xs + self.ff_scale * self.dropout(ys))
