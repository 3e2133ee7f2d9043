"""Whisper's decoder over what CIF fires.

Shapes and names: as in :mod:`espnet_cif_hkd.decoder.cif_decoder` and
:mod:`espnet_cif_hkd.decoder.cross_layer`.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cross_layer import (
    CrossLayer,
    KeysValues,
    Memory,
    whisper_norm,
)
from espnet_cif_hkd.decoder.frame_attention import firing_frames
from espnet_cif_hkd.decoder.layer import causal_mask
from espnet_cif_hkd.decoder.near import Near
from espnet_cif_hkd.decoder.output import CIFDecoderOutput
from espnet_cif_hkd.errors import UserError


class CIFWhisperDecoder(CIFDecoder):
    """Predict token i with the layers of Whisper's decoder, at its firing.

    The cross-attention of token i reads the vectors fired up to i and the encoder
    frames around the firing of i, instead of 30 seconds of frames. The number of fired
    vectors ends a sentence, so the decoder cannot repeat itself. A fired vector is also
    added to the input and to the state of its token, normalised, by matrices that begin
    with zeros: at first only the cross-attention reads it.

    ``python3 -m espnet_cif_hkd.cli.whisper_decoder`` writes a token list and initial
    parameters of a Whisper for ``--init_param FILE:decoder:decoder``. The first D
    dimensions of encoder frames must be the output of the same Whisper's encoder, as
    with ``encoder: joined``.

    Args:
        vocab_size: V.
        encoder_output_size: E, size of encoder frames and of fired vectors, at least D.
        size: D, size of the decoder.
        attention_heads: Heads of each attention; must divide D.
        linear_units: Width of the feed-forward blocks.
        num_blocks: Layers.
        prompt_length: P, number of vectors before the first token, such as those of the
            language and of the task.
        max_length: Largest number of tokens, ``<eos>`` included.
        frame_window: W, encoder frames on each side of the firing that a token reads;
            0: none, null: all frames of the utterance.
        dropout_rate: Dropout of the input, of residuals and inside the feed-forward
            blocks; Whisper was trained without.
        attention_dropout_rate: Dropout of attention weights.
        predictor_conf, eos_slack: As in ``decoder: cif``.

    Raises:
        UserError: An option is unknown or wrong.

    Source: the decoder is that of Whisper, arXiv 2212.04356; a pre-trained language
    decoder over vectors that CIF fires was proposed in arXiv 2101.06699, with BERT. The
    memory of fired vectors and near frames is ours.
    """

    streams = False  # its memory is that of complete utterances

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        size: int = 512,
        attention_heads: int = 8,
        linear_units: int = 2048,
        num_blocks: int = 6,
        prompt_length: int = 3,
        max_length: int = 445,
        frame_window: int | None = 12,
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        predictor_conf: dict[str, Any] | None = None,
        eos_slack: int = 1,
    ) -> None:
        torch.nn.Module.__init__(self)
        counts = {
            "size": (size, 1),
            "attention_heads": (attention_heads, 1),
            "num_blocks": (num_blocks, 1),
            "prompt_length": (prompt_length, 0),
            "max_length": (max_length, 1),
            "frame_window": (0 if frame_window is None else frame_window, 0),
        }
        for name, (value, least) in counts.items():
            if type(value) is not int or value < least:
                raise UserError(
                    f"decoder_conf: {name} is {value!r}; it must be an integer >= "
                    f"{least}"
                )
        if size % attention_heads != 0:
            raise UserError(
                f"decoder_conf: attention_heads {attention_heads} does not divide "
                f"size {size}; choose a divisor"
            )
        if encoder_output_size < size:
            raise UserError(
                f"decoder_conf: size {size} is more than the {encoder_output_size} "
                "dimensions of the encoder; use the Whisper whose encoder is the "
                "frontend, and encoder: joined"
            )
        self._add_firing(vocab_size, encoder_output_size, predictor_conf, eos_slack)
        self.size = size
        self.frame_attention = None
        self.frame_window = frame_window
        self.prompt_length, self.max_length = prompt_length, max_length
        self.embed = torch.nn.Embedding(vocab_size, size)
        # The prompt, and what replaces the embedding of <sos>.
        self.prompt = torch.nn.Parameter(torch.empty(prompt_length + 1, size))
        self.position = torch.nn.Parameter(
            torch.empty(prompt_length + max_length, size)
        )
        # The features of Whisper have large values: without a norm the first updates of
        # these matrices would outweigh everything that the decoder knows.
        self.fired_norm = whisper_norm(encoder_output_size)
        self.fired_in = torch.nn.Linear(encoder_output_size, size, bias=False)
        self.layers = torch.nn.ModuleList(
            CrossLayer(
                size,
                attention_heads,
                linear_units,
                dropout_rate,
                attention_dropout_rate,
            )
            for _ in range(num_blocks)
        )
        self.dropout = torch.nn.Dropout(dropout_rate)
        self.after_norm = whisper_norm(size)
        self.fired_out = torch.nn.Linear(encoder_output_size, size, bias=False)
        self.output_layer = torch.nn.Linear(size, vocab_size, bias=False)
        self.output_layer.weight = self.embed.weight
        for table in (self.embed.weight, self.prompt, self.position):
            torch.nn.init.normal_(table, std=0.02)
        for added in (self.fired_in, self.fired_out):
            torch.nn.init.zeros_(added.weight)

    def near_frames(self, hs_pad: Tensor, hlens: Tensor, fired: CIFOutput) -> Memory:
        """Return keys and values of frames, fired vectors and the prompt."""
        return self.memory(
            fired.embeddings, fired.lengths, (hs_pad, hlens, fired.firing_times)
        )

    def memory(
        self,
        embeddings: Tensor,
        lengths: Tensor,
        frames: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Memory:
        """Build what the layers read; arguments as those of :meth:`speech`."""
        speech, allowed = self.speech(embeddings, lengths, frames)
        prompt: list[KeysValues] = []
        if self.prompt_length > 0:
            n_prompt = self.prompt_length
            xs = self.prompt[:n_prompt] + self.position[:n_prompt]
            xs = self.dropout(xs.expand(len(embeddings), -1, -1))
            mask = causal_mask(n_prompt, n_prompt, xs.device)

            def keep(keys: Tensor, values: Tensor) -> KeysValues:
                prompt.append((keys, values))
                return prompt[-1]

            for layer, read in zip(self.layers, speech, strict=True):
                xs = layer(xs, keep, mask, read, allowed[:, :1])
        return Memory(speech, tuple(prompt), allowed)

    def speech(
        self,
        embeddings: Tensor,
        lengths: Tensor,
        frames: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[tuple[KeysValues, ...], Tensor]:
        """Compute what the layers read of frames and of fired vectors.

        Args:
            embeddings: Fired vectors, ``(B, L, E)``.
            lengths: Their numbers, ``(B,)``.
            frames: Frames ``(B, T, D or E)``, their numbers ``(B,)``, and the times of
                the firings in frames ``(B, L)``; None: tokens read vectors only.

        Returns:
            Keys and values for each layer, ``(B, M, D)``, and where a token reads,
            ``(B, L, M)`` bool.
        """
        missing = 1 if embeddings.size(1) == 0 else 0  # nothing fired: a zero vector
        embeddings = torch.nn.functional.pad(embeddings, (0, 0, 0, missing))
        places = torch.arange(embeddings.size(1), device=embeddings.device)
        valid = places < lengths.to(embeddings.device).clamp(min=1)[:, None]
        allowed = (places <= places[:, None]) & valid[:, None]
        vectors = embeddings[..., : self.size].masked_fill(~valid[..., None], 0.0)
        if frames is not None:
            hs_pad, hlens, times = frames
            times = torch.nn.functional.pad(times, (0, missing))
            near, hs_pad = self._near(hs_pad, hlens, times)
            vectors = torch.cat([hs_pad, vectors.to(hs_pad.dtype)], dim=1)
            allowed = torch.cat([near, allowed], dim=2)
        speech = tuple(cast(CrossLayer, one).read(vectors) for one in self.layers)
        return speech, allowed

    def _near(
        self, hs_pad: Tensor, hlens: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor]:
        """True where tokens read frames, ``(B, L, T)``; frames, zero in padding."""
        places = torch.arange(hs_pad.size(1), device=hs_pad.device)
        hlens = hlens.to(hs_pad.device)
        valid = places < hlens[:, None]  # (B, T)
        frames = hs_pad[..., : self.size].masked_fill(~valid[..., None], 0.0)
        if self.frame_window == 0:
            return valid[:, None, :0].expand(-1, times.size(1), -1), frames[:, :0]
        near = valid[:, None].expand(-1, times.size(1), -1)
        if self.frame_window is not None:
            middle = firing_frames(times, hlens)[..., None]
            near = near & ((places - middle).abs() <= self.frame_window)
        return near, frames

    def forward_with_states(
        self,
        hs_pad: Tensor,
        hlens: Tensor,
        ys_in_pad: Tensor,
        ys_in_lens: Tensor,
        segment_ends: Tensor | None = None,
    ) -> CIFDecoderOutput:
        """As in :class:`CIFDecoder`."""
        n_tokens = ys_in_pad.size(1)
        fired = self.fire(hs_pad, hlens, ys_in_lens, n_tokens, segment_ends)
        memory = self.near_frames(hs_pad, hlens, fired)
        states, hidden = self._run(fired.embeddings, ys_in_pad, memory)
        return CIFDecoderOutput(self.output_layer(states), states, fired, hidden)

    def decode(
        self, embeddings: Tensor, ys_in_pad: Tensor, near: Near | None = None
    ) -> tuple[Tensor, Tensor]:
        """As in :class:`CIFDecoder`; without ``near``, tokens read vectors only."""
        if near is None:
            lengths = torch.full((len(embeddings),), embeddings.size(1))
            near = self.memory(embeddings, lengths)
        states, _ = self._run(embeddings, ys_in_pad, cast(Memory, near))
        return self.output_layer(states), states

    def _run(
        self, embeddings: Tensor, ys_in_pad: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        """States joined with vectors, and states before that, ``(B, L, D)`` each."""
        n_tokens = ys_in_pad.size(1)
        memory = memory.tokens(torch.arange(n_tokens, device=ys_in_pad.device))
        hidden = self._transform_tokens(
            ys_in_pad, embeddings, 0, memory, lambda _, keys, values: (keys, values)
        )
        return self._joined(hidden, embeddings), hidden

    def _joined(self, hidden: Tensor, fired: Tensor) -> Tensor:
        added: Tensor = self.fired_out(self.fired_norm(fired.to(hidden.dtype)))
        return hidden + added

    def _transform_tokens(
        self,
        tokens: Tensor,
        fired: Tensor,
        n_before: int,
        memory: Memory,
        exchange: Callable[[int, Tensor, Tensor], KeysValues],
    ) -> Tensor:
        """Run the layers over tokens ``(N, L)`` and the vectors they shall predict.

        Args:
            tokens: The tokens before those to predict.
            fired: Vectors fired for the tokens to predict, ``(N or 1, L, D)``.
            n_before: Number of tokens before ``tokens``.
            memory: Of the tokens to predict.
            exchange: See :meth:`CIFDecoder.extend`.
        """
        n_new = tokens.size(1)
        n_total = n_before + n_new
        if n_total > self.max_length:
            raise UserError(
                f"decoder: cif_whisper reads at most {self.max_length} tokens, this "
                "utterance has more: cut the audio into shorter utterances"
            )
        xs = self.dropout(self.inputs(tokens, fired, n_before))
        return self.transform(xs, n_before, memory, exchange)

    def inputs(self, tokens: Tensor, fired: Tensor, n_before: int) -> Tensor:
        """What the first layer reads; arguments: :meth:`_transform_tokens`."""
        n_new = tokens.size(1)
        xs: Tensor = self.embed(tokens)
        places = torch.arange(n_new, device=xs.device) + n_before
        xs = torch.where((places == 0)[:, None], self.prompt[-1].to(xs.dtype), xs)
        first = self.prompt_length + n_before
        xs = xs + self.position[first : first + n_new]
        added: Tensor = self.fired_in(self.fired_norm(fired.to(xs.dtype)))
        return xs + added

    def transform(
        self,
        xs: Tensor,
        n_before: int,
        memory: Memory,
        exchange: Callable[[int, Tensor, Tensor], KeysValues],
    ) -> Tensor:
        """Run the layers over ``xs (N, L, D)``; see :meth:`_transform_tokens`."""
        n_new, mask = xs.size(1), None
        if n_new > 1:
            n_total = self.prompt_length + n_before + n_new
            mask = causal_mask(n_new, n_total, xs.device)
        for index, (layer, speech) in enumerate(
            zip(self.layers, memory.speech, strict=True)
        ):
            after = functools.partial(_after_prompt, memory.prompt, exchange, index)
            xs = layer(xs, after, mask, speech, memory.allowed)
        return self.after_norm(xs)  # type: ignore[no-any-return]

    def extend(
        self,
        tokens: Tensor,
        previous: Tensor,
        current: Tensor,
        n_before: int,
        exchange: Callable[[int, Tensor, Tensor], KeysValues],
        mask: Tensor | None = None,
        near: Near | None = None,
    ) -> Tensor:
        """As in :class:`CIFDecoder`; ``near`` has L tokens, ``mask`` is not used.

        Raises:
            UserError: Without ``near``: the search sees no frames, as in a stream.
        """
        if near is None:
            raise UserError(
                "decoder: cif_whisper cannot decode a stream, only complete utterances"
            )
        fired = torch.cat([previous[:, 1:], current[:, None]], dim=1)
        hidden = self._transform_tokens(
            tokens, fired, n_before, cast(Memory, near), exchange
        )
        return self.predict(hidden[:, -1:], current[:, None])

    def predict(self, hidden: Tensor, fired: Tensor) -> Tensor:
        """Logits ``(N, V)`` of a token: its state ``(N, 1, D)``, its vector."""
        return self.output_layer(self._joined(hidden, fired).squeeze(1))  # type: ignore[no-any-return]


def _after_prompt(
    prompt: tuple[KeysValues, ...],
    exchange: Callable[[int, Tensor, Tensor], KeysValues],
    index: int,
    keys: Tensor,
    values: Tensor,
) -> KeysValues:
    """Exchange keys and values of a layer; those of the prompt precede the result.

    ``prompt`` has those of each layer, ``(N or 1, P, D)``, or nothing.
    """
    tokens = exchange(index, keys, values)
    if not prompt:
        return tokens
    keys, values = (
        torch.cat([first.expand(len(second), -1, -1).to(second.dtype), second], dim=1)
        for first, second in zip(prompt[index], tokens, strict=True)
    )
    return keys, values
