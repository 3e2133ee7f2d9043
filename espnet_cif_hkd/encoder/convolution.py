"""The convolution module of a conformer block; padding has no effect."""

from typing import Any

import torch
from torch.nn import functional

from espnet_cif_hkd.encoder.batch_norm import MaskedBatchNorm1d
from espnet_cif_hkd.errors import UserError


class MaskedConvolutionModule(torch.nn.Module):
    """Pointwise convolution and GLU, depth-wise convolution, norm, pointwise.

    In ESPnet's ``ConvolutionModule`` the depth-wise convolution and the batch
    statistics include padded frames. This module has the same parameter names.

    Args:
        channels: D.
        kernel_size: Width K of the depth-wise convolution in frames, odd.
        activation: Applied after the norm.
        bias: Whether the convolutions have biases (ESPnet: yes, the paper: no).
        causal: Whether the last weight of the depth-wise convolution is at the frame
            itself, not the middle one. Otherwise, with chunks, it sees K // 2 frames
            of earlier chunks and zeros instead of later ones.

    Raises:
        UserError: If ``kernel_size`` is not a positive odd integer.

    Source: the encoder of the code of arXiv 2301.13003; arXiv 2304.09325 (chunks).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        activation: torch.nn.Module,
        bias: bool,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(
                f"encoder_conf: cnn_module_kernel {kernel_size!r} must be an odd "
                "integer >= 1"
            )
        self.pointwise_conv1 = torch.nn.Conv1d(channels, 2 * channels, 1, bias=bias)
        self.depthwise_conv = torch.nn.Conv1d(
            channels,
            channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=channels,
            bias=bias,
        )
        self.norm = MaskedBatchNorm1d(channels)
        self.pointwise_conv2 = torch.nn.Conv1d(channels, channels, 1, bias=bias)
        self.activation = activation
        self.causal = causal

    @property
    def left_frames(self) -> int:
        """Earlier frames that a frame sees."""
        kernel_size = self.depthwise_conv.kernel_size[0]
        return kernel_size - 1 if self.causal else kernel_size // 2

    def forward(
        self, xs: torch.Tensor, mask: torch.Tensor, chunk_size: int | None = None
    ) -> torch.Tensor:
        """Mix neighbouring frames.

        Args:
            xs: ``(B, T, D)``.
            mask: True at valid frames, ``(B, 1, T)`` bool.
            chunk_size: Frames of a chunk; None: there are no chunks.

        Returns:
            ``(B, T, D)``.
        """
        xs = self._gate(xs, mask)
        if self.causal:
            xs = self._convolve(functional.pad(xs, (self.left_frames, 0)))
        elif chunk_size is None:
            xs = self.depthwise_conv(xs)
        else:
            xs = self._convolve_chunks(xs, chunk_size)
        return self._finish(xs, mask)

    def forward_chunk(
        self, xs: torch.Tensor, mask: torch.Tensor, before: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix neighbouring frames of one chunk.

        Args:
            xs: Frames of the chunk, ``(B, T, D)``.
            mask: True at valid frames, ``(B, 1, T)`` bool.
            before: The input of the depth-wise convolution at ``left_frames`` earlier
                frames, ``(B, D, left_frames)``; zeros before the first chunk.

        Returns:
            ``(B, T, D)``; ``before`` of the next chunk.
        """
        xs = torch.cat([before.to(xs), self._gate(xs, mask).to(xs)], dim=2)
        before = xs[:, :, xs.size(2) - self.left_frames :]
        return self._finish(self._convolve(xs), mask), before

    def _gate(self, xs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Input of the depth-wise convolution, ``(B, T, D)`` to ``(B, D, T)``."""
        xs = functional.glu(self.pointwise_conv1(xs.transpose(1, 2)), dim=1)
        # A single utterance has zeros outside of its ends; so does this batch.
        return xs.masked_fill(~mask, 0.0)

    def _convolve_chunks(self, xs: torch.Tensor, chunk_size: int) -> torch.Tensor:
        """Convolve each chunk with the frames before it, ``(B, D, T)``."""
        n_batch, n_channels, n_frames = xs.shape
        width = self.left_frames + chunk_size
        # (B, D, chunks, left_frames + chunk_size)
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            # ONNX has no unfold without a loop.
            xs = functional.pad(xs, (self.left_frames, chunk_size))
            n_chunks: Any = (n_frames + chunk_size - 1) // chunk_size
            first = torch.arange(n_chunks, device=xs.device)[:, None] * chunk_size
            xs = xs[:, :, first + torch.arange(width, device=xs.device)]
        else:
            n_missing = -n_frames % chunk_size
            xs = functional.pad(xs, (self.left_frames, n_missing))
            xs = xs.unfold(2, width, chunk_size)
        n_chunks = xs.size(2)
        xs = self._convolve(xs.transpose(1, 2).flatten(0, 1))  # (B · chunks, D, size)
        xs = xs.view(n_batch, n_chunks, n_channels, chunk_size).transpose(1, 2)
        return xs.flatten(2)[:, :, :n_frames]

    def _convolve(self, xs: torch.Tensor) -> torch.Tensor:
        """Convolve frames that follow ``left_frames`` earlier ones."""
        layer = self.depthwise_conv
        n_right = layer.kernel_size[0] - 1 - self.left_frames
        return functional.conv1d(
            functional.pad(xs, (0, n_right)),
            layer.weight,
            layer.bias,
            groups=layer.groups,
        )

    def _finish(self, xs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """From the depth-wise convolution to the output, ``(B, T, D)``."""
        xs = self.activation(self.norm(xs, mask))
        return self.pointwise_conv2(xs).transpose(1, 2)
