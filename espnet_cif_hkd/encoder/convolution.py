"""The convolution module of a conformer block; padding has no effect."""

import torch

from espnet_cif_hkd.encoder.batch_norm import MaskedBatchNorm1d
from espnet_cif_hkd.errors import UserError


class MaskedConvolutionModule(torch.nn.Module):
    """Pointwise convolution and GLU, depth-wise convolution, norm, pointwise.

    In ESPnet's ``ConvolutionModule`` the depth-wise convolution and the batch
    statistics include padded frames. This module has the same parameter names.

    Args:
        channels: D.
        kernel_size: Width of the depth-wise convolution in frames, odd.
        activation: Applied after the norm.
        bias: Whether the convolutions have biases (ESPnet: yes, the paper: no).

    Raises:
        UserError: If ``kernel_size`` is not a positive odd integer.

    Source: the encoder of the code of arXiv 2301.13003.
    """

    def __init__(
        self, channels: int, kernel_size: int, activation: torch.nn.Module, bias: bool
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

    def forward(self, xs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mix neighbouring frames.

        Args:
            xs: ``(B, T, D)``.
            mask: True at valid frames, ``(B, 1, T)`` bool.

        Returns:
            ``(B, T, D)``.
        """
        xs = torch.nn.functional.glu(self.pointwise_conv1(xs.transpose(1, 2)), dim=1)
        # A single utterance has zeros outside of its ends; so does this batch.
        xs = self.depthwise_conv(xs.masked_fill(~mask, 0.0))  # (B, D, T)
        xs = self.activation(self.norm(xs, mask))
        return self.pointwise_conv2(xs).transpose(1, 2)
