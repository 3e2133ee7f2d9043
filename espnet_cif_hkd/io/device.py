"""Transfers between host and device without synchronisation."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy ``array`` to ``device``, without waiting for the device.

    CUDA copies from pageable memory only after all queued work, and the host waits;
    from pinned memory the copy is queued.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class TokenPlaces:
    """Positions of the tokens in a padded batch, computed on the host.

    Args:
        lengths: number of tokens of each of the B utterances; N is their sum.
        device: device of the batch.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device):
        sizes = np.array(lengths, dtype=np.int64)
        rows = np.repeat(np.arange(len(sizes)), sizes)
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self._rows, self._columns = on_device(np.stack([rows, columns]), device)

    def take(self, padded: Tensor) -> Tensor:
        """Return the tokens of ``padded`` (B, L, C) without padding: (N, C).

        The content of padding, even NaN, affects neither values nor gradients.
        """
        places = self._rows * padded.size(1) + self._columns
        return padded.flatten(0, 1).index_select(0, places)
