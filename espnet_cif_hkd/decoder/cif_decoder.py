"""The autoregressive CIF decoder: one fired vector, one token.

Shapes and names
----------------
===  =====================================================================
B    utterances
T    encoder frames, padded
L    tokens, ``<eos>`` included, padded
D    size of encoder frames and of fired vectors
V    vocabulary
N    hypotheses that are scored together, of one utterance or, utterance-major, of B
i    step of the search: number of tokens of a hypothesis
===  =====================================================================
"""

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from espnet2.asr.decoder.abs_decoder import AbsDecoder

from espnet_cif_hkd.cif import CIFOutput, integrate_and_fire
from espnet_cif_hkd.decoder.ctc_firing import CTCFiring
from espnet_cif_hkd.decoder.ending import checked_slack
from espnet_cif_hkd.decoder.firing_options import build_firing
from espnet_cif_hkd.decoder.frame_attention import FrameAttention, NearFrames
from espnet_cif_hkd.decoder.layer import CausalLayer, causal_mask
from espnet_cif_hkd.decoder.near import Near
from espnet_cif_hkd.decoder.output import CIFDecoderOutput
from espnet_cif_hkd.decoder.search_scores import ChoosesLength, SearchScores
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import LayerNorm, PositionalEncoding


class CIFDecoder(SearchScores, AbsDecoder):
    """Predict token i from the tokens before it and the vectors fired up to it.

    The decoder contains the predictor, because ESPnet's beam search has only the
    decoder and encoder frames.

    Args:
        vocab_size: V.
        encoder_output_size: D, size of encoder frames and of this decoder.
        attention_heads: Heads of self-attention; must divide D, the output size of
            the encoder and of the decoder.
        linear_units: Width of the feed-forward blocks.
        num_blocks: Transformer layers, which attend to earlier tokens only.
        dropout_rate: Dropout of residuals and inside the feed-forward blocks.
        positional_dropout_rate: Dropout of the input after adding positions.
        self_attention_dropout_rate: Dropout of attention weights.
        predictor_conf: Options of :class:`CIFPredictor` and the ``tail_threshold`` of
            :func:`integrate_and_fire`.
        eos_slack: In a search, ``<eos>`` may come this number of tokens before the
            last fired one; see :func:`mask_by_fired_length`.
        frame_window: The state of each token also attends to this number of encoder
            frames on each side of the frame in which the token fires; 0: to none.

    Raises:
        UserError: If heads do not divide D, or an option is unknown or wrong.

    Source: the CIF-based decoder of arXiv 1905.11235, with the transformer layers of
    arXiv 2301.13003.
    """

    # Whether it needs no vectors and frames of a stream that are not there yet.
    streams = True

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
        frame_window: int = 0,
    ) -> None:
        super().__init__()
        size, heads = encoder_output_size, attention_heads
        if type(heads) is not int or heads < 1 or size % heads != 0:
            raise UserError(
                f"decoder_conf: attention_heads {heads!r} does not divide the "
                f"encoder's output size {size}; choose a divisor"
            )
        self._add_firing(vocab_size, size, predictor_conf, eos_slack)
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
        self.frame_attention: FrameAttention | None = None
        if frame_window:
            self.frame_attention = FrameAttention(
                size, attention_heads, frame_window, self_attention_dropout_rate
            )

    def _add_firing(
        self,
        vocab_size: int,
        size: int,
        predictor_conf: dict[str, Any] | None,
        eos_slack: int,
    ) -> None:
        """Set what fires and ends; for options see the class."""
        self.fired_size = size
        self.tail_threshold, self.predictor = build_firing(size, predictor_conf)
        self.eos_slack = checked_slack(eos_slack)
        # The model sets it, because CTC belongs to the model.
        self.ctc_firing: CTCFiring | None = None
        # The model sets it, because searches are above the decoders.
        self.length_search: ChoosesLength | None = None
        # ESPnet's token lists end with <sos/eos>; the model sets other indices.
        self.sos = self.eos = vocab_size - 1

    @property
    def language_parameters(self) -> list[torch.nn.Parameter]:
        """All parameters but those of the predictor."""
        return [
            value
            for name, value in self.named_parameters()
            if not name.startswith("predictor.")
        ]

    def fire(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        target_lengths: torch.Tensor | None = None,
        max_target_length: int | None = None,
        segment_ends: torch.Tensor | None = None,
    ) -> CIFOutput:
        """Integrate encoder frames into one vector per token.

        Args:
            hs_pad: Encoder frames, ``(B, T, D)``.
            hlens: Valid frames, ``(B,)``.
            target_lengths: Number of tokens to fire, ``<eos>`` included, ``(B,)``;
                None: alpha determines the number, as in a search.
            max_target_length: L, if known.
            segment_ends: Last frame of each token, if known, ``(B, U)``; see
                :func:`integrate_and_fire`.
        """
        if target_lengths is None:
            alpha = self.weights(hs_pad, hlens)
        else:
            alpha = self.predictor(hs_pad, hlens)
        return integrate_and_fire(
            hs_pad,
            alpha,
            hlens,
            target_lengths,
            self.tail_threshold,
            max_target_length,
            segment_ends,
        )

    def weights(self, hs_pad: torch.Tensor, hlens: torch.Tensor) -> torch.Tensor:
        """Return alpha as a search integrates it, without a known number of tokens.

        Args:
            hs_pad: Encoder frames, ``(B, T, D)``.
            hlens: Valid frames, ``(B,)``.

        Returns:
            ``(B, T)``, 0 in padding: what the predictor gives, or with
            ``ctc_guide_firing: spikes`` what fires at CTC's spikes.
        """
        alpha: torch.Tensor = self.predictor(hs_pad, hlens)
        if self.ctc_firing is None:
            return alpha
        return self.ctc_firing.weights(alpha, hs_pad, hlens)

    def forward(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_in_pad: torch.Tensor,
        ys_in_lens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict known tokens; alpha is scaled to their number.

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
        segment_ends: torch.Tensor | None = None,
    ) -> CIFDecoderOutput:
        """As :meth:`forward`, with fired vectors, quantity and decoder states.

        ``segment_ends`` is that of :meth:`fire`.
        """
        n_tokens = ys_in_pad.size(1)
        fired = self.fire(hs_pad, hlens, ys_in_lens, n_tokens, segment_ends)
        near = self.near_frames(hs_pad, hlens, fired)
        hidden = self._transform(fired.embeddings, ys_in_pad)
        states = self._join(hidden, fired.embeddings, near)
        return CIFDecoderOutput(self.output_layer(states), states, fired, hidden)

    def near_frames(
        self, hs_pad: torch.Tensor, hlens: torch.Tensor, fired: CIFOutput
    ) -> Near | None:
        """Return the frames around each firing; None without ``frame_window``."""
        if self.frame_attention is None:
            return None
        return self.frame_attention.near(hs_pad, hlens, fired.firing_times)

    def decode(
        self,
        embeddings: torch.Tensor,
        ys_in_pad: torch.Tensor,
        near: Near | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the decoder over fired vectors and known tokens.

        Args:
            embeddings: Fired vectors, ``(B, L, D)``.
            ys_in_pad: Tokens shifted right, ``(B, L)``.
            near: :meth:`near_frames`, for at least one token; None: the states read no
                frames, also with ``frame_window``, as for a text without speech.

        Returns:
            Logits ``(B, L, V)`` and states ``(B, L, D)``.
        """
        if near is not None:
            near = near.tokens(torch.arange(ys_in_pad.size(1), device=ys_in_pad.device))
        states = self._join(self._transform(embeddings, ys_in_pad), embeddings, near)
        return self.output_layer(states), states

    def decode_free(
        self, fired: CIFOutput, ys_in_pad: torch.Tensor, near: Near | None
    ) -> torch.Tensor:
        """Logits of known tokens ``(B, L, V)``; zeros replace vectors that lack."""
        n_tokens = ys_in_pad.size(1)
        missing = max(0, n_tokens - fired.embeddings.size(1))
        embeddings = torch.nn.functional.pad(fired.embeddings, (0, 0, 0, missing))
        return self.decode(embeddings[:, :n_tokens], ys_in_pad, near)[0]

    def _transform(
        self, embeddings: torch.Tensor, ys_in_pad: torch.Tensor
    ) -> torch.Tensor:
        """Apply the layers to tokens and to the vectors fired before each.

        Attention is causal and padding comes after the tokens, so no length mask is
        needed.
        """
        previous = torch.nn.functional.pad(embeddings[:, :-1], (0, 0, 1, 0))
        n_tokens = ys_in_pad.size(1)
        mask = causal_mask(n_tokens, n_tokens, ys_in_pad.device).unsqueeze(0)
        hidden = self._enter(ys_in_pad, previous, 0)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return self.after_norm(hidden)  # type: ignore[no-any-return]

    def _join(
        self, hidden: torch.Tensor, fired: torch.Tensor, near: Near | None
    ) -> torch.Tensor:
        """Join states ``(B, L, D)`` and the vectors fired for the same tokens."""
        joined = self.project_out(torch.cat([hidden, fired], dim=-1))
        if self.frame_attention is None or near is None:
            return joined  # type: ignore[no-any-return]
        return self.frame_attention(joined, cast(NearFrames, near))  # type: ignore[no-any-return]

    def _enter(
        self, tokens: torch.Tensor, previous: torch.Tensor, n_before: int
    ) -> torch.Tensor:
        """Embed tokens ``(B, L)`` at positions from ``n_before``: ``(B, L, D)``.

        ``previous``: the vector fired before each token, ``(B or 1, L, D)``.
        """
        xs = self.embed(tokens) * math.sqrt(self.embed.embedding_dim)
        previous = previous.to(xs.dtype).expand_as(xs)
        xs = self.project_in(torch.cat([xs, previous], dim=-1))
        n_total = n_before + tokens.size(1)
        # Only the table of positions: ESPnet's forward also scales its input.
        self.positions.extend_pe(xs.new_empty(1, n_total, 1))
        return self.positions.dropout(xs + self.positions.pe[:, n_before:n_total])

    def extend(
        self,
        tokens: torch.Tensor,
        previous: torch.Tensor,
        current: torch.Tensor,
        n_before: int,
        exchange: Callable[
            [int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]
        ],
        mask: torch.Tensor | None = None,
        near: Near | None = None,
    ) -> torch.Tensor:
        """Predict the next token of prefixes whose last tokens are new, in a search.

        Args:
            tokens: The new tokens, ``(N, L)`` int64; L is usually 1.
            previous: The vectors fired before each, ``(N or 1, L, D)``.
            current: The vector fired for the token to predict, ``(N or 1, D)``.
            n_before: P, the number of tokens before the new ones.
            exchange: Stores keys and values of the new tokens, ``(N, L, D)`` each, for
                a layer index, and returns those of all P + L tokens.
            mask: As in :meth:`CausalLayer.extend`.
            near: Frames around the firings of L tokens to predict, ``(N or 1, L, …)``;
                this decoder reads those of the last.

        Returns:
            Logits, ``(N, V)``.
        """
        hidden = self._enter(tokens, previous, n_before)
        for index, layer in enumerate(self.layers):
            keep = functools.partial(exchange, index)
            hidden = cast(CausalLayer, layer).extend(hidden, keep, mask)
        hidden = self.after_norm(hidden[:, -1:])  # (N, 1, D)
        current = current[:, None].to(hidden.dtype).expand_as(hidden)
        if near is not None and tokens.size(1) > 1:
            near = near.tokens(torch.tensor([tokens.size(1) - 1], device=tokens.device))
        states = self._join(hidden, current, near)
        return self.output_layer(states.squeeze(1))  # type: ignore[no-any-return]
