"""Teacher vectors of all processes of a distributed training."""

import torch
from torch import Tensor


def gather_over_ranks(vectors: Tensor) -> tuple[Tensor, int]:
    """Gather rows of all ranks, in the order of the ranks; without gradients.

    A collective operation: every rank must call it equally often, each with any number
    of rows.

    Args:
        vectors: (N, C) rows of this rank; C and the dtype must be the same on all
            ranks.

    Returns:
        (M, C) rows of all ranks, and the index of the first row of this rank. Without a
        process group, or with a single process, these are ``vectors`` itself and 0.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return vectors, 0
    world_size, rank = distributed.get_world_size(), distributed.get_rank()
    if world_size == 1:
        return vectors, 0
    own = vectors.detach()
    count = torch.tensor([len(own)], device=own.device)
    counts = [torch.empty_like(count) for _ in range(world_size)]
    distributed.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    # All parts of a gather must have the same shape; the padding is removed afterwards.
    padded = own.new_zeros(max(sizes), own.size(1))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    distributed.all_gather(parts, padded)
    rows = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    return torch.cat(rows), sum(sizes[:rank])
