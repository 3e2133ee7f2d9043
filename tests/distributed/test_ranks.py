"""A failing rank is named, and not only the ranks that lost their connection."""

import pytest
import torch
from ranks import run_ranks


def rank_one_fails(rank):
    if rank == 1:
        raise ValueError("the true reason")
    torch.distributed.all_reduce(torch.ones(1))


def test_every_failed_rank_is_reported():
    with pytest.raises(AssertionError) as caught:
        run_ranks(rank_one_fails)
    message = str(caught.value)
    assert "rank 0 failed" in message and "rank 1 failed" in message
    assert "the true reason" in message
