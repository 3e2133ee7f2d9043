"""Two processes train as one: ESPnet's trainer, DDP and gloo, none of them replaced."""

from functools import partial

import pytest
import torch
from ddp_steps import SHARES, assert_close, batch_of, model_of, train
from ranks import run_ranks

from espnet_cif_hkd.losses import contrastive
from espnet_cif_hkd.losses.contrastive import draw_negatives

pytestmark = pytest.mark.slow


def rank_trains(rank, system, acoustic):
    batch = batch_of(SHARES[rank])
    return train(model_of(system, acoustic), [batch], 100 + rank, distributed=True)


def two_draws(n_tokens, num_negatives, *, shared, counts, **_):
    """The negatives that both ranks drew, as one mask over both batches."""
    keep = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    first = 0
    for rank, count in enumerate(counts):
        rows = slice(first, first + count)
        generator = torch.Generator().manual_seed(100 + rank)
        draw = partial(draw_negatives, count, num_negatives, generator=generator)
        if shared:
            keep[rows] = draw(n_candidates=n_tokens, first=first)
        else:
            keep[rows, rows] = draw()
        first += count
    return keep


@pytest.mark.parametrize(
    ("system", "acoustic"),
    [
        ("cif", None),
        ("lrd", None),
        ("acd", {"num_negatives": "all"}),
        ("hkd", {"num_negatives": 6}),
        ("hkd", {"num_negatives": 700}),
        ("hkd", {"num_negatives": "all", "share_negatives": True}),
        ("hkd", {"num_negatives": 6, "share_negatives": True}),
        ("hkd", {"num_negatives": 700, "share_negatives": True}),
    ],
)
def test_two_processes_equal_one_with_both_batches(system, acoustic, monkeypatch):
    """One process draws what the two drew: a token's candidates are given to it."""
    counts = [int((batch_of(share)["text_lengths"] + 1).sum()) for share in SHARES]
    shared = bool(acoustic and acoustic.get("share_negatives"))
    ranks = run_ranks(rank_trains, system, acoustic)
    monkeypatch.setattr(
        contrastive, "draw_negatives", partial(two_draws, shared=shared, counts=counts)
    )
    model = model_of(system, acoustic)
    gradient, log = train(model, [batch_of()], 0, distributed=False)
    # ESPnet's label smoothing and CTC run in float32.
    for moved, stats in ranks:
        assert_close(moved, gradient, rtol=1e-5, atol=1e-6)
        for name in log:
            if name.startswith(("loss", "nll", "acc")):
                assert stats[name] == pytest.approx(log[name], rel=1e-5), name
    if system == "cif":
        assert float(log["loss_att"]) > 1 and len(gradient) > 20


def test_sharing_adds_the_other_processes_tokens_and_nothing_else():
    """All others in one batch of both are all others of both ranks."""
    shared = {"num_negatives": "all", "share_negatives": True}
    complete, _ = train(model_of("hkd", shared), [batch_of()], 0, distributed=False)
    (apart, _), _ = run_ranks(rank_trains, "hkd", {"num_negatives": "all"})
    (together, _), _ = run_ranks(rank_trains, "hkd", shared)
    assert_close(together, complete, rtol=1e-5, atol=1e-6)
    name = "criterion.acoustic_projection.weight"
    assert (apart[name] - complete[name]).abs().max() > 1e-3
