"""The convolution module of a conformer block, blind to padding."""

import torch

from espnet_cif_hkd.encoder.batch_norm import MaskedBatchNorm1d
from espnet_cif_hkd.errors import UserError


class MaskedConvolutionModule(torch.nn.Module):
    """Pointwise convolution and GLU, depth-wise convolution, norm, pointwise.

    ESPnet's ``ConvolutionModule`` lets the depth-wise convolution reach into padded
    frames and counts them in the batch statistics. This one has the same parameters
    under the same names.

    Args:
        channels: D.
        kernel_size: Width of the depth-wise convolution in frames, odd.
        activation: Applied after the norm.
        bias: Whether the convolutions have biases: ESPnet's have, the paper's not.

    Raises:
        UserError: If ``kernel_size`` is even, less than one or no whole number.

    Source: spec A 5.2.
    """

    def __init__(
        self, channels: int, kernel_size: int, activation: torch.nn.Module, bias: bool
    ) -> None:
        super().__init__()
        if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(
                f"encoder_conf: cnn_module_kernel {kernel_size!r} must be odd and a "
                "whole number >= 1, so that a frame stays in the middle of what it sees"
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
        # An utterance alone has zeros beyond its ends; so it has here.
        xs = self.depthwise_conv(xs.masked_fill(~mask, 0.0))  # (B, D, T)
        xs = self.activation(self.norm(xs, mask))
        return self.pointwise_conv2(xs).transpose(1, 2)
