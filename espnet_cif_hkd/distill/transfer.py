"""Between the host and the device, without waiting for what the device still does."""

import numpy as np
import torch
from torch import Tensor


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of ``array`` on ``device``, made in the order of the device's work.

    From pageable memory CUDA would copy only once all its work is done, and the host
    would wait for that; from pinned memory it copies when its turn comes.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def token_places(lengths: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens of a padded batch stand, in the order of the batch.

    Args:
        lengths: (B,) integer, on the host.

    Returns:
        Row and column of each of the N tokens, (N,) int64 both.
    """
    sizes = lengths.numpy()
    rows = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    return rows, np.arange(len(rows)) - np.repeat(starts, sizes)
