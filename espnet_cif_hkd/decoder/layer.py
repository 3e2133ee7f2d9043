"""A Transformer layer that attends to earlier tokens only, with cached keys."""

import math

import torch

from espnet_cif_hkd.compat import (
    LayerNorm,
    MultiHeadedAttention,
    PositionwiseFeedForward,
)


class CausalLayer(torch.nn.Module):
    """Pre-norm self-attention and feed-forward, without encoder attention.

    ESPnet's ``DecoderLayer`` always attends to the encoder and caches outputs, so
    that it projects every earlier token again at each step. This one is made of the
    same ESPnet modules and caches keys and values.

    Args:
        size: Model size d.
        attention_heads: H, must divide ``size``.
        linear_units: Width of the feed-forward block.
        dropout_rate: Dropout of residuals and inside the feed-forward block.
        self_attention_dropout_rate: Dropout of attention weights.

    Source: spec A 2.1, step 6.
    """

    def __init__(
        self,
        size: int,
        attention_heads: int,
        linear_units: int,
        dropout_rate: float,
        self_attention_dropout_rate: float,
    ) -> None:
        super().__init__()
        self.self_attn = MultiHeadedAttention(
            attention_heads, size, self_attention_dropout_rate
        )
        self.feed_forward = PositionwiseFeedForward(size, linear_units, dropout_rate)
        self.norm1 = LayerNorm(size)
        self.norm2 = LayerNorm(size)
        self.dropout = torch.nn.Dropout(dropout_rate)

    def forward(
        self, xs: torch.Tensor, mask: torch.Tensor, cache: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Transform new tokens, given the keys and values of earlier ones.

        Args:
            xs: New tokens, ``(B, L, d)``.
            mask: True where token ``l`` may look, ``(B or 1, L, P + L)`` bool.
            cache: Keys and values of P earlier tokens, ``(B, 2, H, P, d / H)``.

        Returns:
            The transformed tokens, ``(B, L, d)``, and the cache including them,
            ``(B, 2, H, P + L, d / H)``.
        """
        residual = xs
        xs = self.norm1(xs)
        query, key, value = self.self_attn.forward_qkv(xs, xs, xs)  # (B, H, L, d / H)
        new_cache = torch.stack([key, value], dim=1)
        if cache is not None:
            new_cache = torch.cat([cache, new_cache], dim=3)
            key, value = new_cache.unbind(dim=1)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
        attended = self.self_attn.forward_attention(value, scores, mask)
        xs = residual + self.dropout(attended)
        return xs + self.dropout(self.feed_forward(self.norm2(xs))), new_cache
