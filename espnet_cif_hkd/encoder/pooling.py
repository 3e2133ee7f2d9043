"""The pooling over time between the blocks of ``cif_conformer``."""

import torch


def halve(xs: torch.Tensor) -> torch.Tensor:
    """The maximum of each pair of frames, ``(B, T, D)`` to ``(B, T // 2, D)``.

    The length of an utterance includes only pairs of two valid frames, so padding has
    no effect. The original pairs an odd last frame with padding if there is padding,
    and drops it otherwise.
    """
    n_pairs = xs.size(1) // 2
    return torch.maximum(xs[:, 0 : 2 * n_pairs : 2], xs[:, 1 : 2 * n_pairs : 2])
