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
from espnet_cif_hkd.encoder.frames import (
    INPUT_WINDOWS,
    PAPER_INPUT,
    PAPER_POOLING,
    POOLING,
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
    check_pooling,
)
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import (
    LayerNorm,
    RelPositionalEncoding,
    TooShortUttError,
    get_activation,
)


class CIFConformerEncoder(AbsEncoder):
    """Conformer that halves its frame rate after given blocks.

    What stands behind an utterance changes nothing: lengths are reckoned from each
    utterance's own, convolutions see zeros there, batch statistics leave it out.
    Defaults are the paper's for AISHELL-1. With an ESPnet ``input_layer``,
    ``pooling_layers: []``, ``cnn_module_bias: true`` and ``final_norm: true`` it
    computes what ESPnet's conformer (``rel_pos_type: latest``) computes of one
    utterance, from the same parameter names. Those of the input layer differ between
    ESPnet's releases; either are loaded.

    Args:
        input_size: F.
        output_size: D, size of an encoder frame.
        attention_heads: Heads of self-attention with relative positions; must
            divide D.
        linear_units: Width of the feed-forward modules.
        num_blocks: Conformer blocks.
        pooling_layers: Blocks, counted from 1, after which neighbouring frames are
            pooled to their maximum, two to one; an odd last frame is dropped.
        dropout_rate: Dropout of residuals, inside the feed-forward modules, and of
            the input layers ``conv2d_stride2`` and ``linear``.
        positional_dropout_rate: Dropout of relative positions and, with ESPnet's
            input layers, of the frames they come with.
        attention_dropout_rate: Dropout of attention weights.
        input_layer: ``conv2d_stride2`` (the paper's, halves the frame rate), or
            ESPnet's ``conv2d``, ``conv2d1``, ``conv2d2``, ``conv2d6``, ``conv2d8``,
            ``linear`` and null.
        input_channels: Channels of ``conv2d_stride2``.
        activation_type: Activation of feed-forward and convolution modules, by
            ESPnet's name.
        macaron_style: Whether each block begins with a feed-forward module, too;
            then each of the two counts half.
        cnn_module_kernel: Width of the depth-wise convolutions in frames, odd.
        cnn_module_bias: Whether the convolution modules have biases.
        final_norm: Whether a layer norm ends the stack, as in ESPnet's conformer.
        max_pos_emb_len: Frames for which positions are made beforehand; longer
            input extends them.
        espnet_options: Other options of ESPnet's ``ConformerEncoder``, with the only
            values that this one has.

    Raises:
        UserError: If an option is unknown or does not fit.

    Source: spec A 5.2.
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
        self._output_size = output_size
        self.input_layer = input_layer
        self.pooling_layers = check_pooling(pooling_layers, num_blocks)
        self._fewest_frames = fewest_frames(
            INPUT_WINDOWS.get(input_layer, ()) + POOLING * len(self.pooling_layers)
        )
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
            )
            for _ in range(num_blocks)
        )
        self.after_norm = LayerNorm(output_size) if final_norm else None

    def output_size(self) -> int:
        """Return D."""
        return self._output_size

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Encode a batch.

        Args:
            xs_pad: Features, ``(B, T, F)``; what stands behind an utterance is not
                looked at.
            ilens: Valid frames, ``(B,)`` integer.
            prev_states: Not used; part of ESPnet's interface.

        Returns:
            hs_pad, ``(B, T', D)``, zero behind an utterance; valid frames of each,
            ``(B,)``; None.

        Raises:
            TooShortUttError: If no frame is left of an utterance; compiled or
                exported, its length is 0 or less instead.
        """
        ilens = ilens.to(xs_pad.device)
        if not torch.compiler.is_compiling():  # a graph asks nothing of the host
            xs_pad = xs_pad[:, : self._longest(ilens)]
        xs = xs_pad.masked_fill(~_valid(ilens, xs_pad).transpose(1, 2), 0.0)
        xs = apply_front_end(self.embed, xs)
        lengths = frames_after(ilens, INPUT_WINDOWS[self.input_layer])
        mask, pos_emb = _valid(lengths, xs), self._relative_positions(xs)
        for number, block in enumerate(self.encoders, start=1):
            xs = block(xs, pos_emb, mask)
            if number in self.pooling_layers:
                xs, lengths = _halve(xs), frames_after(lengths, POOLING)
                mask, pos_emb = _valid(lengths, xs), self._relative_positions(xs)
        if self.after_norm is not None:
            xs = self.after_norm(xs)
        return xs.masked_fill(~mask.transpose(1, 2), 0.0), lengths, None

    def _longest(self, ilens: torch.Tensor) -> int:
        """Frames of the longest utterance; raises if one is too short."""
        # The only wait for the device; ESPnet's own encoders have it for their masks.
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

    def _relative_positions(self, xs: torch.Tensor) -> torch.Tensor:
        """Vectors of T - 1 to 1 - T for ``xs (B, T, D)``: ``(1, 2 T - 1, D)``.

        From ESPnet's table, but not by its forward: that scales ``xs`` again, and once
        autocast has handed it 16 bits the table stays rounded to them.
        """
        n_frames = xs.size(1)
        self.positions.extend_pe(xs.new_empty(1, n_frames, 1, dtype=torch.float32))
        table = self.positions.pe
        middle = table.size(1) // 2
        vectors = table[:, middle - n_frames + 1 : middle + n_frames]
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


def _halve(xs: torch.Tensor) -> torch.Tensor:
    """The maximum of each pair of frames, ``(B, T, D)`` to ``(B, T // 2, D)``.

    By its length an utterance keeps the pairs whose frames are both its own, so that
    nothing of the padding is in them. In the original a last frame was paired with
    padding if there was any, and dropped if there was none.
    """
    n_pairs = xs.size(1) // 2
    return torch.maximum(xs[:, 0 : 2 * n_pairs : 2], xs[:, 1 : 2 * n_pairs : 2])
