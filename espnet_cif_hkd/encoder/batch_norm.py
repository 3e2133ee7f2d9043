"""Batch normalisation over valid frames."""

import torch


class MaskedBatchNorm1d(torch.nn.BatchNorm1d):
    """``BatchNorm1d`` whose statistics in training exclude padded frames.

    - Parameters and buffers have torch's names: weights of both classes are
      interchangeable. Without padding, the result is the same as torch's; in
      evaluation, the class is torch's.
    - Statistics are float32 also under autocast (float64 for float64 input); the
      result has the dtype of the input.
    - Running statistics are computed as in torch: exponential averages with
      ``momentum`` and the unbiased variance. They are floats, so checkpoints can be
      averaged.
    - Under DDP, each process uses the statistics of its part of the batch, and the
      running statistics of rank 0 are broadcast, as in ESPnet's conformer.
    """

    def forward(  # type: ignore[override]
        self, xs: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Normalise each channel.

        Args:
            xs: ``(B, D, T)``; must be finite in padding, too.
            valid: True at valid frames, ``(B, 1, T)`` bool; at least one is True.

        Returns:
            ``(B, D, T)``; finite in padding, too.
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
