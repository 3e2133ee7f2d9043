"""``text_only``: two processes train as one process that draws the same sentences."""

import pytest
import torch
from ddp_steps import SHARES, assert_close, batch_of, train
from ranks import run_ranks
from tiny_model import tiny_model
from unpaired import criteria

# Masks and noise differ by process, and so do the statistics of its fired vectors.
QUIET = {"mask": 0.0, "noise": 0.0}


def model_of(folder, **options):
    return tiny_model(model_conf=criteria(folder, **options)).double()


def rank_trains(rank, folder):
    model = model_of(folder, **QUIET)
    batches = [batch_of(SHARES[rank], seed) for seed in (0, 1)]
    return train(model, batches, 1, distributed=True)


def test_two_processes_equal_one(tmp_path):
    """Without unused parameters; in each step they read different sentences."""
    ranks = run_ranks(rank_trains, tmp_path)
    model = model_of(tmp_path, **QUIET, batch_size=6)
    gradient, log = train(model, [batch_of(seed=0), batch_of(seed=1)], 1, False)
    for moved, stats in ranks:
        assert_close(moved, gradient, rtol=1e-5, atol=1e-7)
        for name in ("text.loss_map", "text.loss_text", "loss"):
            assert stats[name] == pytest.approx(log[name], rel=1e-5), name
    assert gradient["criteria.text.map.weight"].any()
    assert gradient["decoder.output_layer.weight"].any()


def noisy(rank, folder):
    moved, stats = train(
        model_of(folder, mask=0.5, noise=1.0, start=1),
        [batch_of(SHARES[rank], seed) for seed in (0, 1)],
        *(1, True),
    )
    return moved, stats["text.loss_text"]


def test_masks_and_noise_keep_processes_together(tmp_path):
    """Both have the same parameters after the steps, also before the text starts."""
    (first, loss), (second, other) = run_ranks(noisy, tmp_path)
    assert_close(first, second, rtol=0, atol=0)
    assert torch.isfinite(torch.tensor([loss, other])).all()
