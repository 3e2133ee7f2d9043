"""The one-pass CIF decoder: all tokens at once, from the fired vectors alone.

Names of shapes: as in :mod:`espnet_cif_hkd.decoder.cif_decoder`.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.ending import mask_by_fired_length
from espnet_cif_hkd.decoder.near import Near
from espnet_cif_hkd.decoder.output import CIFDecoderOutput
from espnet_cif_hkd.errors import UserError


@dataclass(frozen=True)
class OnePassState:
    """State of one hypothesis in ESPnet's search.

    Attributes:
        logp: Log-probabilities of all positions of all utterances, ``(B, L, V)``.
        lengths: Number of fired vectors, ``(B,)`` int64 on the CPU.
        owner: Utterance of this hypothesis; None before the first step.
    """

    logp: torch.Tensor
    lengths: torch.Tensor
    owner: int | None = None


class CIFNARDecoder(CIFDecoder):
    """Predict every token from all fired vectors, without earlier tokens.

    The layers attend to all fired vectors of the utterance, earlier and later ones. A
    search needs one pass. Layers and parameter names are those of
    :class:`CIFDecoder`, so ``--init_param`` can start from its parameters.

    Training guesses first, without a gradient: of the wrong tokens, ``sampling_ratio``
    are drawn, and the second pass sees their embeddings beside their fired vectors. The
    other tokens have the loss. So the layers learn how a token depends on its
    neighbours, which fewer and fewer embeddings help to know.

    Args:
        vocab_size: V.
        encoder_output_size: D, size of encoder frames and of this decoder.
        attention_heads: Heads of self-attention; must divide D.
        linear_units: Width of the feed-forward blocks.
        num_blocks: Transformer layers, which attend to all tokens.
        dropout_rate: Dropout of residuals and inside the feed-forward blocks.
        positional_dropout_rate: Dropout of the input after adding positions.
        self_attention_dropout_rate: Dropout of attention weights.
        predictor_conf: As in ``decoder: cif``.
        eos_slack: As in ``decoder: cif``.
        frame_window: As in ``decoder: cif``.
        sampling_ratio: Share of the wrong tokens of the first pass whose embeddings the
            second pass sees, 0 to 1; 0: there is one pass.

    Raises:
        UserError: If heads do not divide D, or an option is unknown or wrong.

    Source: the sampler is that of Paraformer, arXiv 2206.08317; tokens that the model
    is shown have no loss, as in the glancing language model of arXiv 2008.07905.
    """

    streams = False  # it reads all vectors at once

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        attention_heads: int = 4,
        linear_units: int = 2048,
        num_blocks: int = 4,
        dropout_rate: float = 0.1,
        positional_dropout_rate: float = 0.1,
        self_attention_dropout_rate: float = 0.1,
        predictor_conf: dict[str, Any] | None = None,
        eos_slack: int = 1,
        frame_window: int = 0,
        sampling_ratio: float = 0.4,
    ) -> None:
        number = type(sampling_ratio) in (int, float)
        if not number or not 0 <= sampling_ratio <= 1:
            raise UserError(
                f"cif_nar: sampling_ratio is {sampling_ratio!r}; it must be a number "
                "from 0 to 1, the share of the wrong tokens that training shows"
            )
        super().__init__(
            vocab_size,
            encoder_output_size,
            attention_heads,
            linear_units,
            num_blocks,
            dropout_rate,
            positional_dropout_rate,
            self_attention_dropout_rate,
            predictor_conf,
            eos_slack,
            frame_window,
        )
        self.sampling_ratio = float(sampling_ratio)
        # DDP waits for gradients of all parameters that require one.
        self.embed.requires_grad_(self.sampling_ratio > 0)

    def without_firing(self) -> "CIFNARDecoder":
        """Remove the predictor: another decoder of the same encoder fires."""
        del self.predictor
        return self

    def forward_with_states(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_in_pad: torch.Tensor,
        ys_in_lens: torch.Tensor,
        segment_ends: torch.Tensor | None = None,
    ) -> CIFDecoderOutput:
        """As in :class:`CIFDecoder`; tokens are the targets of the sampler only."""
        n_tokens = ys_in_pad.size(1)
        fired = self.fire(hs_pad, hlens, ys_in_lens, n_tokens, segment_ends)
        return self.read(fired, self.near_frames(hs_pad, hlens, fired), ys_in_pad)

    def read(
        self, fired: CIFOutput, near: Near | None, ys_in_pad: torch.Tensor
    ) -> CIFDecoderOutput:
        """Predict known tokens from their fired vectors.

        Args:
            fired: As many vectors as tokens.
            near: :meth:`near_frames`.
            ys_in_pad: Tokens shifted right, ``<sos>`` first, ``(B, L)`` int64.

        Returns:
            ``scored`` is False where training has shown the token.
        """
        if near is not None:
            near = near.tokens(torch.arange(ys_in_pad.size(1), device=ys_in_pad.device))
        shown = None
        if self.training and self.sampling_ratio > 0:
            targets, valid = _targets(ys_in_pad, fired.lengths, self.eos)
            with torch.no_grad():
                guessed = self.predict(fired.embeddings, fired.lengths, near)
            wrong = (guessed.argmax(dim=-1) != targets) & valid
            drawn = torch.rand(wrong.shape, device=wrong.device) < self.sampling_ratio
            shown = (targets, wrong & drawn)
        logits, states, hidden = self._predict(
            fired.embeddings, fired.lengths, near, shown
        )
        scored = None if shown is None else ~shown[1]
        return CIFDecoderOutput(logits, states, fired, hidden, scored)

    def decode(
        self,
        embeddings: torch.Tensor,
        ys_in_pad: torch.Tensor,
        near: Near | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in :class:`CIFDecoder`, without use of the tokens; no row is padding."""
        n_batch, n_tokens, _ = embeddings.shape
        if near is not None:
            near = near.tokens(torch.arange(n_tokens, device=embeddings.device))
        lengths = torch.full((n_batch,), n_tokens)
        logits, states, _ = self._predict(embeddings, lengths, near)
        return logits, states

    def decode_free(
        self, fired: CIFOutput, ys_in_pad: torch.Tensor, near: Near | None
    ) -> torch.Tensor:
        """As in :class:`CIFDecoder`, without use of the tokens."""
        logits = self.predict(fired.embeddings, fired.lengths, near)
        n_tokens = ys_in_pad.size(1)
        missing = max(0, n_tokens - logits.size(1))
        return torch.nn.functional.pad(logits, (0, 0, 0, missing))[:, :n_tokens]

    def predict(
        self,
        embeddings: torch.Tensor,
        lengths: torch.Tensor,
        near: Near | None = None,
    ) -> torch.Tensor:
        """Predict all tokens in one pass.

        Args:
            embeddings: Fired vectors, ``(B, L, D)``.
            lengths: Number of fired vectors, ``(B,)``.
            near: Frames around each firing, ``(B, L, …)``.

        Returns:
            Logits, ``(B, L, V)``; any finite values in padding.
        """
        if embeddings.size(1) == 0:
            n_tokens = self.output_layer.out_features
            return embeddings.new_zeros(embeddings.size(0), 0, n_tokens)
        return self._predict(embeddings, lengths, near)[0]

    def _predict(
        self,
        embeddings: torch.Tensor,
        lengths: torch.Tensor,
        near: Near | None,
        shown: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits, states before the output layer, and states of the layers.

        ``shown``: target tokens ``(B, L)``, and where to use their embeddings.
        """
        n_tokens = embeddings.size(1)
        embeddings = embeddings.to(self.project_in.weight.dtype)
        tokens = torch.zeros_like(embeddings)
        if shown is not None:
            known = self.embed(shown[0]) * math.sqrt(self.embed.embedding_dim)
            tokens = torch.where(shown[1][..., None], known.to(tokens.dtype), tokens)
        xs = self.project_in(torch.cat([tokens, embeddings], dim=-1))
        hidden = self.positions.dropout(xs + self._table(n_tokens, xs))
        lengths = lengths.to(xs.device)
        places = torch.arange(n_tokens, device=xs.device)
        mask = (places < lengths[:, None]).unsqueeze(1)  # (B, 1, L)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        hidden = self.after_norm(hidden)
        states = self._join(hidden, embeddings, near)
        return self.output_layer(states), states, hidden

    def _table(self, n_tokens: int, xs: torch.Tensor) -> torch.Tensor:
        """Vectors of the positions, ``(1, L, D)``."""
        self.positions.extend_pe(xs.new_empty(1, n_tokens, 1))
        table: torch.Tensor = self.positions.pe[:, :n_tokens]
        return table

    def batch_init_state(  # type: ignore[override]
        self, x: torch.Tensor, xs_lengths: torch.Tensor | None = None
    ) -> OnePassState:
        """Predict all tokens of one utterance or of a batch, before a search.

        Args:
            x: Encoder frames, ``(T, D)`` or ``(B, T, D)``.
            xs_lengths: Number of valid frames of a batch, ``(B,)``; None: all.

        Returns:
            The initial state of every hypothesis.
        """
        fired = self._fire_once(x, xs_lengths)
        logits = self.predict(fired.embeddings, fired.lengths, fired.near)
        return OnePassState(logits.log_softmax(dim=-1), fired.lengths)

    def batch_score(  # type: ignore[override]
        self,
        ys: torch.Tensor,
        states: list[OnePassState],
        xs: torch.Tensor,
        xs_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[OnePassState]]:
        """Return the log-probabilities of the next position of N hypotheses.

        Args:
            ys: Prefixes, ``(N, i + 1)`` int64; only their length matters.
            states: One state per hypothesis.
            xs, xs_mask: Not used.

        Returns:
            Log-probabilities under the ending rule, ``(N, V)``, and N states.
        """
        logp, lengths = states[0].logp, states[0].lengths
        each = len(states) // len(lengths)  # utterance-major at the first step
        owners = [
            n // each if state.owner is None else state.owner
            for n, state in enumerate(states)
        ]
        step = ys.size(1) - 1
        place = min(step, logp.size(1) - 1)
        rows = logp[torch.tensor(owners, device=logp.device), place]
        rows = mask_by_fired_length(
            rows, step, lengths[owners], self.eos, self.eos_slack
        )
        return rows, [OnePassState(logp, lengths, owner) for owner in owners]


def _targets(
    ys_in_pad: torch.Tensor, lengths: torch.Tensor, eos: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens to predict, ``(B, L)``, and where they are no padding."""
    places = torch.arange(ys_in_pad.size(1), device=ys_in_pad.device)
    valid = places < lengths[:, None]
    targets = torch.nn.functional.pad(ys_in_pad[:, 1:], (0, 1), value=eos)
    return targets.masked_fill(places >= lengths[:, None] - 1, eos), valid
