"""The weight predictor of CIF: the share of a token that each frame holds."""

import torch


class CIFPredictor(torch.nn.Module):
    """Predict alpha from encoder frames: Conv1d, dropout, Linear, sigmoid.

    There is no activation between the convolution and the linear layer, as in the
    original. Padded frames are set to zero before the convolution: padding does not
    affect alpha.

    Args:
        input_size: D, size of an encoder frame.
        conv_channels: Channels of the convolution; None (null in YAML) means D.
        conv_width: Width of the convolution in frames; odd, so that frames and
            weights stay aligned.
        dropout_rate: Dropout after the convolution.

    Raises:
        ValueError: If ``conv_width`` is even or less than one.

    Source: arXiv 1905.11235, the weights of the CIF module; the layers are those of
    the code of arXiv 2301.13003.

    Example:
        >>> import torch
        >>> predictor = CIFPredictor(8).eval()
        >>> alpha = predictor(torch.randn(2, 5, 8), torch.tensor([5, 3]))
        >>> alpha.shape, alpha[1, 3:].tolist()
        (torch.Size([2, 5]), [0.0, 0.0])
    """

    def __init__(
        self,
        input_size: int,
        conv_channels: int | None = None,
        conv_width: int = 3,
        dropout_rate: float = 0.2,
    ) -> None:
        super().__init__()
        if conv_width < 1 or conv_width % 2 == 0:
            raise ValueError(
                f"predictor_conf: conv_width must be odd and positive, got {conv_width}"
            )
        channels = input_size if conv_channels is None else conv_channels
        self.conv = torch.nn.Conv1d(
            input_size, channels, conv_width, padding=conv_width // 2
        )
        self.dropout = torch.nn.Dropout(dropout_rate)
        self.output = torch.nn.Linear(channels, 1)
        torch.nn.init.xavier_uniform_(self.output.weight)
        torch.nn.init.zeros_(self.output.bias)

    def forward(self, hs_pad: torch.Tensor, hlens: torch.Tensor) -> torch.Tensor:
        """Compute the unscaled weights.

        Args:
            hs_pad: Encoder frames, ``(B, T, D)``, any floating dtype.
            hlens: Number of valid frames, ``(B,)`` integer.

        Returns:
            alpha in (0, 1), 0 in padding, ``(B, T)``; float32 also under autocast
            (float64 for a float64 module): sums of 16-bit weights lose tokens.
        """
        frames = torch.arange(hs_pad.size(1), device=hs_pad.device)
        pad = frames[None, :] >= hlens.to(hs_pad.device)[:, None]  # (B, T)
        with torch.autocast(hs_pad.device.type, enabled=False):
            xs = hs_pad.to(self.conv.weight.dtype)
            xs = xs.masked_fill(pad[..., None], 0.0)
            xs = self.conv(xs.transpose(1, 2)).transpose(1, 2)  # (B, T, C)
            logits = self.output(self.dropout(xs)).squeeze(-1)  # (B, T)
            alpha = torch.sigmoid(logits)
        return alpha.masked_fill(pad, 0.0)
