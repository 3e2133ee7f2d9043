"""The paper's encoder: conformer blocks with max pooling over time between them.

Shapes and names
----------------
===  ================================================
B    utterances
T    frames: of the input, then of each section
F    size of a feature frame
D    size of an encoder frame
===  ================================================
"""

from collections.abc import Sequence
from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder

from espnet_cif_hkd.encoder.block import ConformerBlock
from espnet_cif_hkd.encoder.chunks import FULL, check_chunks
from espnet_cif_hkd.encoder.frames import (
    INPUT_WINDOWS,
    PAPER_INPUT,
    PAPER_POOLING,
    POOLING,
    Windows,
    fewest_frames,
    frames_after,
)
from espnet_cif_hkd.encoder.front_end import (
    apply_front_end,
    build_front_end,
    rename_for_this_release,
)
from espnet_cif_hkd.encoder.options import (
    check_count,
    check_espnet_options,
    check_flag,
    check_pooling,
)
from espnet_cif_hkd.encoder.pooling import halve
from espnet_cif_hkd.encoder.streaming import EncoderCache, encode_piece
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import (
    LayerNorm,
    RelPositionalEncoding,
    TooShortUttError,
    get_activation,
)


class CIFConformerEncoder(AbsEncoder):
    """Conformer that halves its frame rate after given blocks.

    Padding does not affect the output: the length of an utterance depends on its own
    frames, convolutions see zeros in padding, and batch statistics exclude padding.
    The defaults are the paper's for AISHELL-1. With an ESPnet ``input_layer``,
    ``pooling_layers: []``, ``cnn_module_bias: true`` and ``final_norm: true``, the
    output for one utterance equals that of ESPnet's conformer (``rel_pos_type:
    latest``), with the same parameter names. Names in the input layer differ between
    ESPnet's releases; both are loaded.

    Args:
        input_size: F.
        output_size: D, size of an encoder frame.
        attention_heads: Heads of self-attention with relative positions; must
            divide D.
        linear_units: Width of the feed-forward modules.
        num_blocks: Conformer blocks.
        pooling_layers: Blocks, counted from 1, after which each pair of neighbouring
            frames becomes their maximum; an odd last frame is dropped.
        dropout_rate: Dropout of residuals, inside the feed-forward modules, and of
            the input layers ``conv2d_stride2`` and ``linear``.
        positional_dropout_rate: Dropout of relative positions and, with ESPnet's
            input layers, of the frames.
        attention_dropout_rate: Dropout of attention weights.
        input_layer: ``conv2d_stride2`` (the paper's, halves the frame rate), or
            ESPnet's ``conv2d``, ``conv2d1``, ``conv2d2``, ``conv2d6``, ``conv2d8``,
            ``linear`` and null.
        input_channels: Channels of ``conv2d_stride2``.
        activation_type: Activation of feed-forward and convolution modules, by
            ESPnet's name.
        macaron_style: Whether each block also begins with a feed-forward module;
            then both have the factor 1/2.
        cnn_module_kernel: Width of the depth-wise convolutions in frames, odd.
        cnn_module_bias: Whether the convolution modules have biases.
        final_norm: Whether a layer norm ends the stack, as in ESPnet's conformer.
        max_pos_emb_len: Number of frames with positions at the start; longer input
            extends them.
        chunk_size: For streaming: a frame sees its own chunk of this number of encoder
            output frames, and earlier chunks, in attention and convolutions. null or
            0: full context. A list: one of these is drawn for each training batch.
            ``dynamic``: full context for half of the batches, 1 to 25 frames for the
            others, as in arXiv 2012.05481.
        left_chunks: Past chunks that attention sees; -1: all.
        decoding_chunk_size: Chunk size outside of training; null: ``chunk_size`` if it
            is one number, else full context. It is no parameter: a copy of the
            configuration with another value decodes the same checkpoint.
        causal_convolution: Whether the convolutions of the blocks see earlier frames
            only, with and without chunks. Otherwise they see later frames up to the
            end of the chunk.
        espnet_options: Other options of ESPnet's ``ConformerEncoder``, with the only
            values that this encoder supports.

    Raises:
        UserError: If an option is unknown or does not fit.

    Source: the encoder of the code of arXiv 2301.13003.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        attention_heads: int = 4,
        linear_units: int = 2048,
        num_blocks: int = 15,
        pooling_layers: Sequence[int] = PAPER_POOLING,
        dropout_rate: float = 0.1,
        positional_dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.1,
        input_layer: str | None = PAPER_INPUT,
        input_channels: int = 128,
        activation_type: str = "swish",
        macaron_style: bool = True,
        cnn_module_kernel: int = 15,
        cnn_module_bias: bool = False,
        final_norm: bool = False,
        max_pos_emb_len: int = 5000,
        chunk_size: int | str | Sequence[int] | None = None,
        left_chunks: int = -1,
        decoding_chunk_size: int | None = None,
        causal_convolution: bool = False,
        **espnet_options: Any,
    ) -> None:
        super().__init__()
        check_espnet_options(espnet_options)
        for name, value in (
            ("output_size", output_size),
            ("attention_heads", attention_heads),
            ("linear_units", linear_units),
            ("num_blocks", num_blocks),
            ("input_channels", input_channels),
        ):
            check_count(name, value)
        if output_size % 2 != 0:
            raise UserError(
                f"encoder_conf: output_size {output_size} must be even: positions are "
                "pairs of sine and cosine"
            )
        if output_size % attention_heads != 0:
            raise UserError(
                f"encoder_conf: attention_heads {attention_heads} does not divide "
                f"output_size {output_size}; choose a divisor"
            )
        try:
            get_activation(activation_type)
        except KeyError as error:
            raise UserError(
                f"encoder_conf: ESPnet has no activation_type {activation_type!r}; "
                "the paper's is swish"
            ) from error
        check_flag("causal_convolution", causal_convolution)
        self.chunks, self.decoding_chunk_size = check_chunks(
            chunk_size, left_chunks, decoding_chunk_size
        )
        self._output_size = output_size
        self.input_layer = input_layer
        self.pooling_layers = check_pooling(pooling_layers, num_blocks)
        self.embed = build_front_end(
            input_layer,
            input_size,
            output_size,
            input_channels,
            dropout_rate,
            positional_dropout_rate,
        )
        self.positions = RelPositionalEncoding(output_size, 0.0, max_pos_emb_len)
        self.positional_dropout = torch.nn.Dropout(positional_dropout_rate)
        self.encoders = torch.nn.ModuleList(
            ConformerBlock(
                output_size,
                attention_heads,
                linear_units,
                dropout_rate,
                attention_dropout_rate,
                activation_type,
                macaron_style,
                cnn_module_kernel,
                cnn_module_bias,
                causal_convolution,
            )
            for _ in range(num_blocks)
        )
        self.after_norm = LayerNorm(output_size) if final_norm else None
        self._fewest_frames = fewest_frames(self.windows())

    def output_size(self) -> int:
        """Return D."""
        return self._output_size

    def windows(self, layer: int | None = None) -> Windows:
        """Windows over time from the features to a block.

        Args:
            layer: Block, counted from 1, before the pooling that follows it; None: the
                output of the encoder.
        """
        last = len(self.encoders) + 1 if layer is None else layer
        n_pooled = sum(number < last for number in self.pooling_layers)
        return INPUT_WINDOWS[self.input_layer] + POOLING * n_pooled

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Encode a batch.

        Args:
            xs_pad: Features, ``(B, T, F)``; the content of padding has no effect.
            ilens: Number of valid frames, ``(B,)`` integer.
            prev_states: Not used; part of ESPnet's interface.

        Returns:
            hs_pad, ``(B, T', D)``, zero in padding; number of valid frames, ``(B,)``;
            None.

        Raises:
            TooShortUttError: If an utterance has no output frame. A compiled or
                exported encoder gives a length of 0 or less instead.
        """
        ilens = ilens.to(xs_pad.device)
        # A graph has no access to the host.
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined]
        if not (traced or torch.compiler.is_compiling()):
            xs_pad = xs_pad[:, : self._longest(ilens)]
        xs = xs_pad.masked_fill(~_valid(ilens, xs_pad).transpose(1, 2), 0.0)
        xs = apply_front_end(self.embed, xs)
        lengths = frames_after(ilens, INPUT_WINDOWS[self.input_layer])
        chunk_size = self.chunks.draw() if self.training else self.decoding_chunk_size
        chunk_size *= 2 ** len(self.pooling_layers)
        mask, pos_emb = _valid(lengths, xs), self.relative_positions(xs)
        chunks = None if chunk_size == FULL else self.chunks.section(chunk_size, mask)
        for number, block in enumerate(self.encoders, start=1):
            xs = block(xs, pos_emb, mask, chunks=chunks)
            if number in self.pooling_layers:
                xs, lengths = halve(xs), frames_after(lengths, POOLING)
                mask, pos_emb = _valid(lengths, xs), self.relative_positions(xs)
                if chunks is not None:
                    chunks = self.chunks.section(chunks.size // 2, mask)
        if self.after_norm is not None:
            xs = self.after_norm(xs)
        return xs.masked_fill(~mask.transpose(1, 2), 0.0), lengths, None

    def forward_chunk(
        self,
        xs_pad: torch.Tensor,
        cache: EncoderCache | None = None,
        ilens: torch.Tensor | None = None,
        last: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, EncoderCache]:
        """Encode a piece of a stream; for evaluation.

        The pieces may have any sizes, 0 included. Frames come as soon as their chunk
        is complete, or with the last piece. Joined, they equal the output of
        :meth:`forward` for the complete utterances.

        Args:
            xs_pad: The next features, ``(B, T, F)``.
            cache: From the piece before; None for the first piece. It is not changed.
            ilens: Number of valid frames, ``(B,)`` integer; None: all. Less than T ends
                an utterance: its later pieces have 0.
            last: Whether all utterances end with this piece.

        Returns:
            hs_pad, ``(B, T', D)``, zero in padding; number of valid frames, ``(B,)``;
            the cache for the next piece.

        Raises:
            UserError: If ``decoding_chunk_size`` is full context, the encoder is in
                training, or an utterance goes on after its end.
        """
        return encode_piece(self, xs_pad, cache, ilens, last)

    def _longest(self, ilens: torch.Tensor) -> int:
        """Frames of the longest utterance; raises if one is too short."""
        # The only synchronisation; ESPnet's own encoders have it for their masks.
        shortest, longest = torch.stack(torch.aminmax(ilens)).tolist()
        if shortest < self._fewest_frames:
            raise TooShortUttError(
                f"has {shortest} frames and is too short for the encoder (input_layer "
                f"{self.input_layer} and {len(self.pooling_layers)} poolings need "
                f"{self._fewest_frames} frames or more), return empty results",
                shortest,
                self._fewest_frames,
            )
        return int(longest)

    def relative_positions(self, xs: torch.Tensor, n_before: int = 0) -> torch.Tensor:
        """Vectors of P + T - 1 to 1 - T for ``xs (B, T, D)``: ``(1, P + 2 T - 1, D)``.

        P is ``n_before``, the number of earlier frames that attention sees. Uses
        ESPnet's table, but not its forward, which scales ``xs`` again and keeps the
        table in 16 bits after a call under autocast.
        """
        n_frames = xs.size(1)
        n_keys = n_before + n_frames
        self.positions.extend_pe(xs.new_empty(1, n_keys, 1, dtype=torch.float32))
        table = self.positions.pe
        middle = table.size(1) // 2
        vectors = table[:, middle - n_keys + 1 : middle + n_frames]
        return self.positional_dropout(vectors.to(xs.dtype))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        rename_for_this_release(self.embed, state_dict, f"{prefix}embed.")
        super()._load_from_state_dict(state_dict, prefix, *args)


def _valid(lengths: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
    """True at the frames of each utterance of ``xs (B, T, …)``, ``(B, 1, T)``."""
    frames = torch.arange(xs.size(1), device=lengths.device)
    return frames[None, None, :] < lengths[:, None, None]
