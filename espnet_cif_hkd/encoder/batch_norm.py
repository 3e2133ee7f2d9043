"""Batch normalisation over the frames that are speech."""

import torch


class MaskedBatchNorm1d(torch.nn.BatchNorm1d):
    """``BatchNorm1d`` whose statistics in training leave out padded frames.

    - Same parameters, buffers and names as torch's, so that weights of either fit the
      other, and the same result where nothing is padded. In evaluation it is torch's.
    - Statistics are reckoned in float32 also under autocast (float64 for float64
      input); the result has the dtype of the input.
    - Running statistics follow torch: exponential averages with ``momentum``, the
      variance unbiased. They are floats, so that checkpoints can be averaged.
    - Under DDP each process takes the statistics of its own part of the batch, and
      rank 0's running ones are broadcast, as with ESPnet's conformer.
    """

    def forward(  # type: ignore[override]
        self, xs: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Normalise each channel.

        Args:
            xs: ``(B, D, T)``; finite also where it does not count.
            valid: True at frames that count, ``(B, 1, T)`` bool, one at least.

        Returns:
            ``(B, D, T)``; finite also where it does not count.
        """
        if not self.training:
            return super().forward(xs)
        with torch.autocast(xs.device.type, enabled=False):
            wide = xs.to(torch.promote_types(xs.dtype, torch.float32))
            n_frames = valid.sum()
            pad = ~valid
            mean = wide.masked_fill(pad, 0.0).sum(dim=(0, 2)) / n_frames  # (D,)
            centred = (wide - mean[:, None]).masked_fill(pad, 0.0)
            variance = centred.square().sum(dim=(0, 2)) / n_frames  # (D,)
            scale = self.weight * (variance + self.eps).rsqrt()
            ys = centred * scale[:, None] + self.bias[:, None]
            self._track(mean.detach(), variance.detach(), n_frames)
        return ys.to(xs.dtype)

    @torch.no_grad()
    def _track(
        self, mean: torch.Tensor, variance: torch.Tensor, n_frames: torch.Tensor
    ) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        unbiased = variance * n_frames / (n_frames - 1).clamp(min=1)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
