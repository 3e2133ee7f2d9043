"""Attention of a decoder state to the encoder frames around the firing of its token.

Shapes and names
----------------
===  =====================================================================
N    utterances or hypotheses
T    encoder frames, padded
L    tokens
W    frames on each side of the frame in which a token fires
K    2W + 1, frames around one firing
D    size of encoder frames and of decoder states
===  =====================================================================

The window of a token is known as soon as W further frames are, so the latency of a
streaming decoder grows by W frames. Keys and values of all windows are computed once
for an utterance, before a search.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_cif_hkd.decoder.near import Near
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import LayerNorm

# A firing this close after the end of a frame, in frames, still belongs to the frame.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class NearFrames(Near):
    """The encoder frames around the firing of each token.

    Attributes:
        keys: ``(N, L, K, D)``.
        values: ``(N, L, K, D)``.
        allowed: False for places before the first and after the last frame,
            ``(N, L, K)`` bool. The middle is always True.
    """

    keys: Tensor
    values: Tensor
    allowed: Tensor

    def utterances(self, chosen: Tensor) -> "NearFrames":
        """Choose or repeat utterances by their indices, ``(M,)`` int64."""
        return self._selected(0, chosen)

    def tokens(self, chosen: Tensor) -> "NearFrames":
        """Choose tokens by their indices, ``(M,)`` int64; after the last: the last."""
        return self._selected(1, chosen.clamp(max=self.keys.size(1) - 1))

    def first(self, count: int) -> "NearFrames":
        """Keep the first utterances."""
        return NearFrames(self.keys[:count], self.values[:count], self.allowed[:count])

    def _selected(self, dim: int, chosen: Tensor) -> "NearFrames":
        return NearFrames(
            self.keys.index_select(dim, chosen),
            self.values.index_select(dim, chosen),
            self.allowed.index_select(dim, chosen),
        )


def firing_frames(times: Tensor, hlens: Tensor) -> Tensor:
    """Return the frame in which each token fires, ``(N, L)`` int64.

    Args:
        times: Firing times in frames, ``(N, L)``; any value for padding.
        hlens: Number of valid frames, ``(N,)``.
    """
    frames = (times - _ROUNDING).ceil().long() - 1
    return torch.minimum(frames.clamp(min=0), (hlens - 1).clamp(min=0)[:, None])


class FrameAttention(torch.nn.Module):
    """Add to each state what it finds in the frames around the firing of its token.

    Multi-head attention with a learned bias for each place of the window. The output
    projection begins with zeros: a new module changes nothing before it is trained.

    Args:
        size: D.
        attention_heads: H, must divide D.
        window: W, at least 1.
        dropout_rate: Dropout of the attention weights and of the result.

    Raises:
        UserError: If W is no integer or negative.
    """

    def __init__(
        self, size: int, attention_heads: int, window: int, dropout_rate: float
    ) -> None:
        super().__init__()
        if type(window) is not int or window < 1:
            raise UserError(
                f"decoder_conf: frame_window is {window!r}; it must be a number of "
                "frames, an integer >= 0"
            )
        self.heads, self.window = attention_heads, window
        self.norm_states = LayerNorm(size)
        self.norm_frames = LayerNorm(size)
        self.query = torch.nn.Linear(size, size)
        self.key = torch.nn.Linear(size, size)
        self.value = torch.nn.Linear(size, size)
        self.output = torch.nn.Linear(size, size)
        self.places = torch.nn.Parameter(torch.zeros(attention_heads, 2 * window + 1))
        self.dropout = torch.nn.Dropout(dropout_rate)
        torch.nn.init.zeros_(self.output.weight)
        torch.nn.init.zeros_(self.output.bias)

    def near(self, hs_pad: Tensor, hlens: Tensor, times: Tensor) -> NearFrames:
        """Return keys and values of the frames around each firing.

        Args:
            hs_pad: Encoder frames, ``(N, T, D)``; padding may hold any value.
            hlens: Number of valid frames, ``(N,)``.
            times: Firing times in frames, ``(N, L)``; any value for padding. Without a
                token, the result has the window of time 0.
        """
        if times.size(1) == 0:
            times = times.new_zeros(times.size(0), 1)
        hlens = hlens.to(hs_pad.device)
        frames = torch.arange(hs_pad.size(1), device=hs_pad.device)
        pad = frames >= hlens[:, None]  # (N, T)
        normed = self.norm_frames(hs_pad.masked_fill(pad[..., None], 0.0))
        last = (hlens - 1).clamp(min=0)[:, None]
        middle = firing_frames(times, hlens)  # (N, L)
        offsets = torch.arange(-self.window, self.window + 1, device=hs_pad.device)
        places = middle[..., None] + offsets  # (N, L, K)
        allowed = (places >= 0) & (places <= last[..., None])
        chosen = torch.minimum(places.clamp(min=0), last[..., None])
        rows = torch.arange(hs_pad.size(0), device=hs_pad.device)[:, None, None]
        return NearFrames(
            self.key(normed)[rows, chosen], self.value(normed)[rows, chosen], allowed
        )

    def forward(self, states: Tensor, near: NearFrames) -> Tensor:
        """Return the states with what they found added, ``(N, L, D)``.

        Args:
            states: ``(N, L, D)``.
            near: Frames of N utterances, or of one for all.
        """
        query = self._heads(self.query(self.norm_states(states))).unsqueeze(2)
        # Products and sums: thousands of tiny matrix products are slower.
        scores = (query * self._heads(near.keys)).sum(-1) / query.size(-1) ** 0.5
        scores = scores + self.places.t()  # (N, L, K, H)
        scores = scores.masked_fill(~near.allowed[..., None], -torch.inf)
        weights = self.dropout(scores.softmax(2))
        found = (weights[..., None] * self._heads(near.values)).sum(2).flatten(2)
        return states + self.dropout(self.output(found))  # type: ignore[no-any-return]

    def _heads(self, xs: Tensor) -> Tensor:
        """``(…, D)`` to ``(…, H, d)``."""
        return xs.unflatten(-1, (self.heads, -1))
