"""Teacher vectors of all processes of a distributed training."""

import torch
from torch import Tensor


def gather_over_ranks(vectors: Tensor) -> tuple[Tensor, int]:
    """Rows of all ranks, one rank after the other.

    A collective operation: every rank must call it equally often, each with any
    number of rows. Nothing is differentiated, which suits a frozen teacher.

    Args:
        vectors: (N, C) of this rank; C and the dtype are the same on all ranks.

    Returns:
        (M, C) rows of all ranks, the same on each, and the row where those of this
        rank begin. Without a process group, or in one of a single process, these are
        ``vectors`` itself and 0.
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
    # All parts of one gather must have one shape; the padding is cut off again.
    padded = own.new_zeros(max(sizes), own.size(1))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    distributed.all_gather(parts, padded)
    rows = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    return torch.cat(rows), sum(sizes[:rank])
