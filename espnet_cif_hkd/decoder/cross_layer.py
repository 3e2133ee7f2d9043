"""A Transformer layer that attends to earlier tokens, then to a memory of speech.

Shapes and names
----------------
===  =====================================================================
N    utterances or hypotheses
L    tokens
P    tokens of the prompt, before all others
M    vectors of the memory, padded
D    size of the decoder and of the memory
===  =====================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from espnet_cif_hkd.decoder.layer import Exchange
from espnet_cif_hkd.decoder.near import Near
from espnet_cif_hkd.plugin.compat import (
    LayerNorm,
    MultiHeadedAttention,
    PositionwiseFeedForward,
)

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Memory(Near):
    """What the layers of a decoder read of N utterances, computed once for each.

    Attributes:
        speech: Keys and values of the memory for each layer, ``(N, M, D)``.
        prompt: Keys and values of the prompt for each layer, ``(N, P, D)``.
        allowed: True where a token reads, ``(N, L, M)`` bool; each reads something.
    """

    speech: tuple[KeysValues, ...]
    prompt: tuple[KeysValues, ...]
    allowed: Tensor

    def utterances(self, chosen: Tensor) -> "Memory":
        """Choose or repeat utterances by their indices, ``(M,)`` int64."""
        return self._of_utterances(lambda xs: xs.index_select(0, chosen))

    def tokens(self, chosen: Tensor) -> "Memory":
        """Choose tokens by their indices, ``(M,)`` int64; after the last: the last."""
        places = chosen.clamp(max=self.allowed.size(1) - 1)
        return replace(self, allowed=self.allowed.index_select(1, places))

    def first(self, count: int) -> "Memory":
        """Keep the first utterances."""
        return self._of_utterances(lambda xs: xs[:count])

    def _of_utterances(self, choose: Callable[[Tensor], Tensor]) -> "Memory":
        def each(pairs: Sequence[KeysValues]) -> tuple[KeysValues, ...]:
            return tuple((choose(keys), choose(values)) for keys, values in pairs)

        return Memory(each(self.speech), each(self.prompt), choose(self.allowed))


class CrossLayer(torch.nn.Module):
    """Pre-norm self-attention, attention to a memory, and feed-forward with GELU.

    The layer of Whisper's decoder, of ESPnet's modules. Its caller provides the keys
    and values of earlier tokens.

    Args:
        size: D.
        attention_heads: H, must divide D.
        linear_units: Width of the feed-forward block.
        dropout_rate: Dropout of residuals and inside the feed-forward block.
        attention_dropout_rate: Dropout of attention weights.
    """

    def __init__(
        self,
        size: int,
        attention_heads: int,
        linear_units: int,
        dropout_rate: float,
        attention_dropout_rate: float,
    ) -> None:
        super().__init__()
        self.attention_dropout_rate = attention_dropout_rate
        # Dropout of attention is ours, below.
        self.self_attn = MultiHeadedAttention(attention_heads, size, 0.0)
        self.src_attn = MultiHeadedAttention(attention_heads, size, 0.0)
        self.feed_forward = PositionwiseFeedForward(
            size, linear_units, dropout_rate, torch.nn.GELU()
        )
        self.norm1, self.norm2, self.norm3 = (whisper_norm(size) for _ in range(3))
        self.dropout = torch.nn.Dropout(dropout_rate)

    def read(self, memory: Tensor) -> KeysValues:
        """Return keys and values of a memory, ``(N, M, D)`` each."""
        return self.src_attn.linear_k(memory), self.src_attn.linear_v(memory)

    def forward(
        self,
        xs: Tensor,
        exchange: Exchange,
        mask: Tensor | None,
        speech: KeysValues,
        allowed: Tensor,
    ) -> Tensor:
        """Transform tokens.

        Args:
            xs: ``(N, L, D)``.
            exchange: Takes keys and values of these tokens, ``(N, L, D)`` each, and
                returns those of all tokens up to the last one, the prompt first,
                ``(N, K, D)``.
            mask: True where a token attends to one of them, ``(L, K)`` bool; None: to
                all.
            speech: Keys and values of the memory, ``(N or 1, M, D)``.
            allowed: True where a token reads the memory, ``(N or 1, L, M)`` bool.

        Returns:
            ``(N, L, D)``.
        """
        attention, normed = self.self_attn, self.norm1(xs)
        tokens = exchange(attention.linear_k(normed), attention.linear_v(normed))
        found = self._attend(attention.linear_q(normed), tokens, mask)
        xs = xs + self.dropout(attention.linear_out(found))
        query = self.src_attn.linear_q(self.norm2(xs))
        found = self._attend(query, speech, allowed[:, None])
        xs = xs + self.dropout(self.src_attn.linear_out(found))
        return xs + self.dropout(self.feed_forward(self.norm3(xs)))  # type: ignore[no-any-return]

    def _attend(self, query: Tensor, pair: KeysValues, mask: Tensor | None) -> Tensor:
        heads = self.self_attn.h
        q, k, v = (
            one.expand(query.size(0), -1, -1).unflatten(2, (heads, -1)).transpose(1, 2)
            for one in (query, *pair)
        )
        rate = self.attention_dropout_rate if self.training else 0.0
        found = scaled_dot_product_attention(q, k, v, mask, rate)
        return found.transpose(1, 2).flatten(2)


def whisper_norm(size: int) -> LayerNorm:
    """Return ESPnet's layer norm with the constant of Whisper."""
    norm = LayerNorm(size)
    norm.eps = 1e-5
    return norm
