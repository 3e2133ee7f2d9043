"""Self-attention with relative positions that also takes an utterance in chunks."""

import math

import torch

from espnet_cif_hkd.plugin.compat import RelPositionMultiHeadedAttention


class ChunkAttention(RelPositionMultiHeadedAttention):  # type: ignore[misc]
    """ESPnet's attention with its parameter names, and keys of earlier frames."""

    def forward_chunk(
        self,
        xs: torch.Tensor,
        pos_emb: torch.Tensor,
        mask: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attend from the frames of a chunk to them and to earlier ones.

        Args:
            xs: Frames of the chunk, ``(B, T, D)``.
            pos_emb: Relative positions from P + T - 1 to 1 - T, ``(1, P + 2 T - 1,
                D)``.
            mask: True at valid frames, earlier ones first, ``(B, 1, P + T)`` bool.
            keys: Keys of P earlier frames, ``(B, H, P, d_k)``.
            values: Their values, as ``keys``.

        Returns:
            ``(B, T, D)``; keys and values of the P + T frames.
        """
        query, key, value = self.forward_qkv(xs, xs, xs)  # (B, H, T, d_k)
        keys = torch.cat([keys.to(key), key], dim=2)
        values = torch.cat([values.to(value), value], dim=2)
        positions = self.linear_pos(pos_emb).view(1, -1, self.h, self.d_k)
        positions = positions.transpose(1, 2)  # (1, H, P + 2 T - 1, d_k)
        content = (query + self.pos_bias_u[:, None]) @ keys.transpose(2, 3)
        distances = (query + self.pos_bias_v[:, None]) @ positions.transpose(2, 3)
        # Query q and key k are P + q - k frames apart: the vector T - 1 - q + k.
        n_frames, n_keys = xs.size(1), keys.size(2)
        vector = torch.arange(n_keys, device=xs.device) + n_frames - 1
        vector = vector - torch.arange(n_frames, device=xs.device)[:, None]
        vector = vector.expand(*distances.shape[:2], -1, -1)
        scores = (content + distances.gather(3, vector)) / math.sqrt(self.d_k)
        return self.forward_attention(values, scores, mask), keys, values
