"""A Transformer layer that attends to earlier tokens only."""

from collections.abc import Callable

import torch

from espnet_cif_hkd.plugin.compat import (
    LayerNorm,
    MultiHeadedAttention,
    PositionwiseFeedForward,
)

Exchange = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class CausalLayer(torch.nn.Module):
    """Pre-norm self-attention and feed-forward, without encoder attention.

    ESPnet's ``DecoderLayer`` always attends to the encoder. It caches outputs, so it
    projects every earlier token again at each step. This layer consists of the same
    ESPnet modules; its caller stores keys and values.

    Args:
        size: Model size d.
        attention_heads: H, must divide ``size``.
        linear_units: Width of the feed-forward block.
        dropout_rate: Dropout of residuals and inside the feed-forward block.
        self_attention_dropout_rate: Dropout of attention weights.

    Source: the decoder of arXiv 2301.13003.
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

    def forward(self, xs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Transform known tokens.

        Args:
            xs: Tokens, ``(B, L, d)``.
            mask: True where token ``l`` attends, ``(B or 1, L, L)`` bool.

        Returns:
            The transformed tokens, ``(B, L, d)``.
        """
        normed = self.norm1(xs)
        xs = xs + self.dropout(self.self_attn(normed, normed, normed, mask))
        return xs + self.dropout(self.feed_forward(self.norm2(xs)))

    def extend(
        self, xs: torch.Tensor, exchange: Exchange, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Transform new tokens after earlier ones, without dropout.

        Args:
            xs: New tokens, ``(N, L, d)``.
            exchange: Stores keys and values of the new tokens, ``(N, L, d)`` each, and
                returns those of all P + L tokens.
            mask: True where new token ``l`` attends, ``(L, P + L)`` bool; None: it
                attends to all, which is correct for one new token.

        Returns:
            The transformed tokens, ``(N, L, d)``.
        """
        attention = self.self_attn
        normed = self.norm1(xs)
        query = attention.linear_q(normed)
        keys, values = exchange(attention.linear_k(normed), attention.linear_v(normed))
        attended = torch.nn.functional.scaled_dot_product_attention(
            self._heads(query), self._heads(keys), self._heads(values), mask
        )
        xs = xs + attention.linear_out(attended.transpose(1, 2).flatten(2))
        return xs + self.feed_forward(self.norm2(xs))

    def _heads(self, xs: torch.Tensor) -> torch.Tensor:
        """``(N, L, d)`` to ``(N, H, L, d / H)``."""
        return xs.unflatten(2, (self.self_attn.h, -1)).transpose(1, 2)


def causal_mask(n_new: int, n_total: int, device: torch.device) -> torch.Tensor:
    """True where a new token attends: itself and earlier tokens, ``(new, all)``."""
    mask = torch.ones(n_new, n_total, dtype=torch.bool, device=device)
    return mask.tril(diagonal=n_total - n_new)
