"""Between the host and the device, without waiting for what the device still does."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """``array`` on ``device``, copied there in the order of the device's work.

    From pageable memory CUDA copies only once all its work is done, and the host waits
    for that; from pinned memory it copies when its turn comes.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class TokenPlaces:
    """Where the tokens of a padded batch stand, known without asking the device.

    Args:
        lengths: tokens of each of the B utterances; N is their sum.
        device: of the batch.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device):
        sizes = np.array(lengths, dtype=np.int64)
        rows = np.repeat(np.arange(len(sizes)), sizes)
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self._rows, self._columns = on_device(np.stack([rows, columns]), device)

    def take(self, padded: Tensor) -> Tensor:
        """(N, C) tokens of ``padded`` (B, L, C), in the order of the batch.

        Neither values nor gradients depend on what stands elsewhere, be it NaN.
        """
        places = self._rows * padded.size(1) + self._columns
        return padded.flatten(0, 1).index_select(0, places)
