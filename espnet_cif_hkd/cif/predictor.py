"""The weight predictor of CIF: the share of a token that each frame holds."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class PredictorCache:
    """What the predictor keeps between two pieces of a stream.

    Attributes:
        frames: The frames before the next weight and those that wait for later frames,
            ``(B, T, D)``, zero in padding.
        lengths: Valid frames received, ``(B,)`` int64.
        n_weights: Frames that have their weight, padding included.

    Example:
        >>> import torch
        >>> piece = torch.zeros(1, 4, 8), torch.tensor([4])
        >>> ready, _, lengths, cache = CIFPredictor(8).eval().forward_chunk(*piece)
        >>> ready.shape, lengths.tolist(), cache.n_weights  # frame 3 waits for frame 4
        (torch.Size([1, 3, 8]), [3], 3)
    """

    frames: torch.Tensor
    lengths: torch.Tensor
    n_weights: int


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
        causal: Whether the convolution sees no later frame. Otherwise the last
            ``conv_width // 2`` frames of each chunk of a stream wait for the next one.

    Raises:
        ValueError: If ``conv_width`` is even or less than one, or ``causal`` is not
            true or false.

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
        causal: bool = False,
    ) -> None:
        super().__init__()
        if conv_width < 1 or conv_width % 2 == 0:
            raise ValueError(
                f"predictor_conf: conv_width must be odd and positive, got {conv_width}"
            )
        if type(causal) is not bool:
            raise ValueError(
                f"predictor_conf: causal must be true or false, got {causal!r}"
            )
        channels = input_size if conv_channels is None else conv_channels
        self.conv = torch.nn.Conv1d(
            input_size, channels, conv_width, padding=conv_width // 2
        )
        self.dropout = torch.nn.Dropout(dropout_rate)
        self.output = torch.nn.Linear(channels, 1)
        torch.nn.init.xavier_uniform_(self.output.weight)
        torch.nn.init.zeros_(self.output.bias)
        # Earlier and later frames that the convolution sees
        self.right = 0 if causal else conv_width // 2
        self.left = conv_width - 1 - self.right

    def forward(self, hs_pad: torch.Tensor, hlens: torch.Tensor) -> torch.Tensor:
        """Compute the unscaled weights.

        Args:
            hs_pad: Encoder frames, ``(B, T, D)``, any floating dtype.
            hlens: Number of valid frames, ``(B,)`` integer.

        Returns:
            alpha in (0, 1), 0 in padding, ``(B, T)``; float32 also under autocast
            (float64 for a float64 module): sums of 16-bit weights lose tokens.
        """
        pad = _padding(hs_pad, hlens.to(hs_pad.device))  # (B, T)
        xs = hs_pad.masked_fill(pad[..., None], 0.0)
        if self.left == self.right:
            return self._weights(self.conv, xs).masked_fill(pad, 0.0)
        xs = functional.pad(xs, (0, 0, self.left, self.right))
        return self.inside(xs).masked_fill(pad, 0.0)

    def forward_chunk(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        cache: PredictorCache | None = None,
        last: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, PredictorCache]:
        """Compute the weights of the next frames of a stream.

        The pieces may have any sizes. Joined, the weights equal those of
        :meth:`forward` for the complete utterances.

        Args:
            hs_pad: The next encoder frames, ``(B, T, D)``.
            hlens: Number of valid frames, ``(B,)`` integer. Less than T ends an
                utterance: its later pieces have 0.
            cache: From the piece before; None for the first piece. It is not changed.
            last: Whether all utterances end with this piece.

        Returns:
            The frames that have their weight now, ``(B, T', D)``; alpha, ``(B, T')``;
            the number of valid ones, ``(B,)``; the cache for the next piece.
        """
        hlens = hlens.to(hs_pad.device, torch.int64)
        xs = hs_pad.masked_fill(_padding(hs_pad, hlens)[..., None], 0.0)
        if cache is None:
            zeros = xs.new_zeros(xs.size(0), self.left, xs.size(2))
            cache = PredictorCache(zeros, torch.zeros_like(hlens), 0)
        xs = torch.cat([cache.frames, xs], dim=1)
        if last:
            xs = functional.pad(xs, (0, 0, 0, self.right))
        n_ready = max(0, xs.size(1) - self.left - self.right)
        lengths = cache.lengths + hlens
        ready = xs[:, self.left : self.left + n_ready]
        if n_ready > 0:
            alpha = self.inside(xs)
        else:
            alpha = xs.new_zeros(ready.shape[:2], dtype=self.conv.weight.dtype)
        n_valid = (lengths - cache.n_weights).clamp(0, n_ready)
        alpha = alpha.masked_fill(_padding(ready, n_valid), 0.0)
        cache = PredictorCache(xs[:, n_ready:], lengths, cache.n_weights + n_ready)
        return ready, alpha, n_valid, cache

    def inside(self, xs: torch.Tensor) -> torch.Tensor:
        """Weights of the frames that have all neighbours in ``xs (B, T, D)``.

        Returns:
            ``(B, T - left - right)``.
        """
        return self._weights(self._unpadded, xs)

    def _weights(
        self, conv: Callable[[torch.Tensor], torch.Tensor], xs: torch.Tensor
    ) -> torch.Tensor:
        """Weights of frames, ``(B, T, D)`` to ``(B, T)``."""
        with torch.autocast(xs.device.type, enabled=False):
            xs = xs.to(self.conv.weight.dtype)
            xs = conv(xs.transpose(1, 2)).transpose(1, 2)  # (B, T, C)
            return torch.sigmoid(self.output(self.dropout(xs)).squeeze(-1))

    def _unpadded(self, xs: torch.Tensor) -> torch.Tensor:
        return functional.conv1d(xs, self.conv.weight, self.conv.bias)


def _padding(xs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """True in padding of ``xs (B, T, …)``, ``(B, T)``."""
    return torch.arange(xs.size(1), device=xs.device) >= lengths[:, None]
