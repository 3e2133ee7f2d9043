"""The autoregressive CIF decoder: one fired vector, one token.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    encoder frames, padded
L    tokens, ``<eos>`` included, padded
D    size of encoder frames and of fired vectors
V    vocabulary
N    hypotheses scored together, of one utterance or, utterance-major, of B
i    step of the search: how many tokens a hypothesis has
===  =====================================================================
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from espnet2.asr.decoder.abs_decoder import AbsDecoder

from espnet_cif_hkd.cif import CIFOutput, CIFPredictor, integrate_and_fire
from espnet_cif_hkd.compat import BatchScorerInterface, LayerNorm, PositionalEncoding
from espnet_cif_hkd.decoder.ending import mask_by_fired_length
from espnet_cif_hkd.decoder.layer import CausalLayer
from espnet_cif_hkd.errors import UserError


@dataclass
class CIFDecoderOutput:
    """What training needs of one pass through the decoder.

    Attributes:
        logits: ``(B, L, V)``.
        states: Decoder states joined with the fired vectors, before the output
            layer, ``(B, L, D)``: what LRD compares with the teacher.
        cif: Fired vectors, lengths, quantity and firing times.
    """

    logits: torch.Tensor
    states: torch.Tensor
    cif: CIFOutput


class CIFDecoder(AbsDecoder, BatchScorerInterface):
    """Predict token i from the tokens before it and the vectors fired up to it.

    The decoder owns the predictor, because ESPnet hands beam search nothing but the
    decoder and encoder frames.

    Args:
        vocab_size: V.
        encoder_output_size: D, size of encoder frames and of this decoder.
        attention_heads: Heads of self-attention; must divide D, the encoder's output
            size, which is also the decoder's.
        linear_units: Width of the feed-forward blocks.
        num_blocks: Transformer layers; they look at earlier tokens only, never at
            encoder frames.
        dropout_rate: Dropout of residuals and inside the feed-forward blocks.
        positional_dropout_rate: Dropout of the input after adding positions.
        self_attention_dropout_rate: Dropout of attention weights.
        predictor_conf: Options of :class:`CIFPredictor` and the ``tail_threshold`` of
            :func:`integrate_and_fire`.
        eos_slack: How many tokens before the last fired one ``<eos>`` may come in a
            search; :func:`mask_by_fired_length` has the rule.

    Raises:
        UserError: If heads do not divide D or ``predictor_conf`` has an unknown key.

    Source: spec A 2.1.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        attention_heads: int = 4,
        linear_units: int = 2048,
        num_blocks: int = 2,
        dropout_rate: float = 0.2,
        positional_dropout_rate: float = 0.1,
        self_attention_dropout_rate: float = 0.2,
        predictor_conf: dict[str, Any] | None = None,
        eos_slack: int = 1,
    ) -> None:
        super().__init__()
        size = encoder_output_size
        if size % attention_heads != 0:
            raise UserError(
                f"decoder_conf: attention_heads {attention_heads} does not divide the "
                f"encoder's output size {size}; choose a divisor"
            )
        conf = dict(predictor_conf or {})
        self.tail_threshold: float | None = conf.pop("tail_threshold", 0.5)
        known = {"conv_channels", "conv_width", "dropout_rate"}
        if not set(conf) <= known:
            raise UserError(
                f"decoder_conf: predictor_conf has unknown keys "
                f"{sorted(set(conf) - known)}; known are "
                f"{sorted(known | {'tail_threshold'})}"
            )
        self.eos_slack = eos_slack
        # ESPnet's token lists end with <sos/eos>; the model tells if this one does not
        self.eos = vocab_size - 1
        self.predictor = CIFPredictor(size, **conf)

        self.embed = torch.nn.Embedding(vocab_size, size)
        self.project_in = torch.nn.Linear(2 * size, size, bias=False)
        self.positions = PositionalEncoding(size, positional_dropout_rate)
        self.layers = torch.nn.ModuleList(
            CausalLayer(
                size,
                attention_heads,
                linear_units,
                dropout_rate,
                self_attention_dropout_rate,
            )
            for _ in range(num_blocks)
        )
        self.after_norm = LayerNorm(size)
        self.project_out = torch.nn.Linear(2 * size, size, bias=False)
        self.output_layer = torch.nn.Linear(size, vocab_size, bias=False)
        torch.nn.init.normal_(self.embed.weight, std=size**-0.5)
        torch.nn.init.normal_(self.output_layer.weight, std=size**-0.5)

    def fire(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        target_lengths: torch.Tensor | None = None,
        max_target_length: int | None = None,
    ) -> CIFOutput:
        """Integrate encoder frames into one vector per token.

        Args:
            hs_pad: Encoder frames, ``(B, T, D)``.
            hlens: Valid frames, ``(B,)``.
            target_lengths: Tokens to fire, ``<eos>`` included, ``(B,)``; None lets
                alpha decide, as in a search.
            max_target_length: L, if known.
        """
        alpha = self.predictor(hs_pad, hlens)
        return integrate_and_fire(
            hs_pad, alpha, hlens, target_lengths, self.tail_threshold, max_target_length
        )

    def forward(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_in_pad: torch.Tensor,
        ys_in_lens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score known tokens; alpha is scaled to their number.

        Args:
            hs_pad: Encoder frames, ``(B, T, D)``.
            hlens: Valid frames, ``(B,)``.
            ys_in_pad: Tokens shifted right, ``<sos>`` first, ``(B, L)`` int64.
            ys_in_lens: Tokens of each utterance, ``<sos>`` included, ``(B,)``.

        Returns:
            Logits, ``(B, L, V)``, and ``ys_in_lens``.
        """
        output = self.forward_with_states(hs_pad, hlens, ys_in_pad, ys_in_lens)
        return output.logits, ys_in_lens

    def forward_with_states(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_in_pad: torch.Tensor,
        ys_in_lens: torch.Tensor,
    ) -> CIFDecoderOutput:
        """As :meth:`forward`, with fired vectors, quantity and decoder states."""
        fired = self.fire(hs_pad, hlens, ys_in_lens, ys_in_pad.size(1))
        logits, states = self.decode(fired.embeddings, ys_in_pad)
        return CIFDecoderOutput(logits, states, fired)

    def decode(
        self, embeddings: torch.Tensor, ys_in_pad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the decoder over fired vectors and known tokens.

        Padding stands behind the tokens and attention looks back only, so no mask of
        lengths is needed.

        Args:
            embeddings: Fired vectors, ``(B, L, D)``.
            ys_in_pad: Tokens shifted right, ``(B, L)``.

        Returns:
            Logits ``(B, L, V)`` and states ``(B, L, D)``.
        """
        previous = torch.nn.functional.pad(embeddings[:, :-1], (0, 0, 1, 0))
        n_tokens = ys_in_pad.size(1)
        mask = _causal_mask(n_tokens, n_tokens, ys_in_pad.device)
        hidden, _ = self._transform(ys_in_pad, previous, mask, None)
        states = self.project_out(torch.cat([hidden, embeddings], dim=-1))
        return self.output_layer(states), states

    def _transform(
        self,
        tokens: torch.Tensor,
        previous: torch.Tensor,
        mask: torch.Tensor,
        cache: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed and transform tokens that follow P cached ones.

        Args:
            tokens: ``(B, L)``; previous: the vectors fired before each, ``(B, L, D)``;
            mask: ``(1, L, P + L)``; cache: ``(B, layers, 2, H, P, D / H)`` or None.

        Returns:
            Hidden states, ``(B, L, D)``, and the cache of P + L tokens.
        """
        xs = self.embed(tokens) * math.sqrt(self.embed.embedding_dim)
        xs = self.project_in(torch.cat([xs, previous.to(xs.dtype)], dim=-1))
        n_cached = 0 if cache is None else cache.size(4)
        n_total = n_cached + tokens.size(1)
        # The positions alone: ESPnet's forward would scale the projection as well.
        self.positions.extend_pe(xs.new_empty(1, n_total, 1))
        xs = self.positions.dropout(xs + self.positions.pe[:, n_cached:n_total])
        new_cache = []
        for index, layer in enumerate(self.layers):
            xs, layer_cache = layer(
                xs, mask, None if cache is None else cache[:, index]
            )
            new_cache.append(layer_cache)
        return self.after_norm(xs), torch.stack(new_cache, dim=1)

    def init_state(self, x: torch.Tensor) -> dict[str, Any]:
        """Fire the tokens of one utterance, ``x (T, D)``, before a search."""
        return self.batch_init_state(x)

    def batch_init_state(
        self, x: torch.Tensor, xs_lengths: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """Fire the tokens of one utterance or of a batch, once, before a search.

        Args:
            x: Encoder frames, ``(T, D)`` or ``(B, T, D)``.
            xs_lengths: Valid frames of a batch, ``(B,)``; None takes all.

        Returns:
            The state that every hypothesis starts from.
        """
        hs_pad = x if x.dim() == 3 else x.unsqueeze(0)
        if xs_lengths is None:
            xs_lengths = torch.full((hs_pad.size(0),), hs_pad.size(1))
        fired = self.fire(hs_pad, xs_lengths.to(x.device))
        for n_fired, n_frames in zip(
            fired.lengths.tolist(), xs_lengths.tolist(), strict=True
        ):
            if n_fired == 0:
                logging.warning("no token fired: the hypothesis is empty")
            if n_fired > n_frames:
                logging.warning(
                    "%d tokens fired from %d encoder frames: with maxlenratio 0 the "
                    "search stops after %d; use less sub-sampling, longer units or a "
                    "maxlenratio",
                    n_fired,
                    n_frames,
                    n_frames,
                )
        embeddings = fired.embeddings
        if embeddings.size(1) == 0:  # nothing fired: a vector that is never used
            embeddings = embeddings.new_zeros(hs_pad.size(0), 1, hs_pad.size(2))
        return {
            "embeddings": embeddings,  # (B, L, D)
            "lengths": fired.lengths,  # (B,)
            "utterance": None,
            "cache": None,
        }

    def score(
        self, ys: torch.Tensor, state: Any, x: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
        """Score the next token of one hypothesis, ``ys (i + 1,)``: ``(V,)``."""
        logp, states = self.batch_score(ys.unsqueeze(0), [state], x.unsqueeze(0))
        return logp.squeeze(0), states[0]

    def batch_score(
        self,
        ys: torch.Tensor,
        states: list[Any],
        xs: torch.Tensor,
        xs_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[Any]]:
        """Score the next token of N hypotheses.

        Args:
            ys: Prefixes, ``<sos>`` first, ``(N, i + 1)`` int64.
            states: One state per hypothesis.
            xs: Encoder frames; not looked at, the vectors have fired already.
            xs_mask: Likewise.

        Returns:
            Log-probabilities under the ending rule, ``(N, V)``, and N states.
        """
        n_hyp = ys.size(0)
        embeddings, lengths = states[0]["embeddings"], states[0]["lengths"]
        if states[0]["utterance"] is None:
            # The common first state; slots are laid out utterance-major.
            per_utterance = n_hyp // embeddings.size(0)
            owners = [n // per_utterance for n in range(n_hyp)]
            cache = None
        else:
            owners = [state["utterance"] for state in states]
            cache = torch.stack([state["cache"] for state in states])
        owner = torch.tensor(owners, device=ys.device)  # (N,)

        n_cached = 0 if cache is None else cache.size(4)
        # ESPnet 202611 goes on scoring slots that have ended: stay inside.
        steps = torch.arange(n_cached, ys.size(1), device=ys.device)
        last = embeddings.size(1) - 1
        current = embeddings[owner[:, None], steps.clamp(max=last)]  # (N, new, D)
        previous = embeddings[owner[:, None], (steps - 1).clamp(min=0, max=last)]
        previous = previous.masked_fill((steps == 0)[:, None], 0.0)
        mask = _causal_mask(len(steps), ys.size(1), ys.device)
        hidden, cache = self._transform(ys[:, n_cached:], previous, mask, cache)
        joined = torch.cat([hidden[:, -1], current[:, -1].to(hidden.dtype)], dim=-1)
        logp = torch.log_softmax(self.output_layer(self.project_out(joined)), dim=-1)
        logp = mask_by_fired_length(
            logp, ys.size(1) - 1, lengths[owner], self.eos, self.eos_slack
        )
        return logp, [
            {
                "embeddings": embeddings,
                "lengths": lengths,
                "utterance": owners[n],
                "cache": cache[n],  # (layers, 2, H, i + 1, D / H)
            }
            for n in range(n_hyp)
        ]


def _causal_mask(n_new: int, n_total: int, device: torch.device) -> torch.Tensor:
    """True where new token l may look: itself and what stands before, (1, new, all)."""
    mask = torch.ones(n_new, n_total, dtype=torch.bool, device=device)
    return mask.tril(diagonal=n_total - n_new).unsqueeze(0)
