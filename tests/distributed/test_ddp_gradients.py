"""Two processes train as one: ESPnet's trainer, DDP and gloo, none of them replaced."""

import argparse
import itertools
from functools import partial

import pytest
import torch
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer
from ranks import run_ranks
from test_model import slice_batch
from tiny_model import tiny_batch, tiny_config, tiny_model

from espnet_cif_hkd.losses import contrastive
from espnet_cif_hkd.losses.contrastive import draw_negatives

TEACHER_DIM = 10
LEARNING_RATE = 1.0
# Rank 0 has fewer and shorter utterances, so that no two numbers are equal.
SHARES = ([0, 1], [2, 3, 4, 5])
SYSTEMS = {
    "cif": {"criterion": None},
    "acd": {"criterion": "hkd", "linguistic": {"weight": 0.0}},
    "lrd": {"criterion": "hkd", "acoustic": {"weight": 0.0, "share_negatives": True}},
    "hkd": {"criterion": "hkd"},
}


class TableTeacher:
    """A vector for each pair of neighbouring tokens: no PLM is needed here."""

    def __init__(self, vocab_size):
        generator = torch.Generator().manual_seed(7)
        shape = (vocab_size, vocab_size, TEACHER_DIM)
        self.table = torch.randn(shape, generator=generator)

    def features(self, sequences, device):
        rows = []
        for ids in sequences:
            path = [0, *ids, len(self.table) - 1]
            rows += [self.table[a, b] for a, b in itertools.pairwise(path)]
        return torch.stack(rows).to(device)


def model_of(system, acoustic=None, **changes):
    conf = dict(SYSTEMS[system])
    criterion = conf.pop("criterion")
    if criterion is None:
        return tiny_model(**changes).double()
    conf |= {"teacher": "replaced", "teacher_dim": TEACHER_DIM}
    if acoustic:
        conf["acoustic"] = {"temperature": 0.1, **acoustic}
    model_conf = {"criterion": criterion, "criterion_conf": conf}
    model = tiny_model(model_conf=model_conf, **changes).double()
    model.criterion._teacher = TableTeacher(model.vocab_size)
    return model


def batch_of(share=None, seed=0):
    batch = tiny_batch(6, seed=seed, dtype=torch.float64)
    return batch if share is None else slice_batch(batch, share)


def seeded(batches, seed):
    """Batches as ESPnet's iterators give them; draws depend on ``seed`` alone."""
    for batch in batches:
        torch.manual_seed(seed)
        yield [str(n) for n in range(len(batch["text"]))], batch


def train(model, batches, seed, distributed):
    """One epoch of ESPnet's own trainer; how the parameters moved, and the log."""
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    wrapped = model
    if distributed:
        wrapped = torch.nn.parallel.DistributedDataParallel(
            model, find_unused_parameters=False, gradient_as_bucket_view=True
        )
    options = Trainer.build_options(
        argparse.Namespace(**{**tiny_config(), "ngpu": 0, "grad_clip": 1e9})
    )
    reporter = Reporter()
    reporter.set_epoch(1)
    with reporter.observe("train") as sub_reporter:
        Trainer.train_one_epoch(
            model=wrapped,
            iterator=seeded(batches, seed),
            optimizers=[torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)],
            schedulers=[None],
            scaler=None,
            reporter=sub_reporter,
            summary_writer=None,
            options=options,
            distributed_option=DistributedOption(distributed=distributed),
        )
    moved = {
        k: (before[k] - p.detach()) / LEARNING_RATE for k, p in model.named_parameters()
    }
    return moved, reporter.stats[1]["train"]


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


def assert_close(ours, expected, **tolerance):
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            ours[key], value, msg=lambda m, k=key: f"{k}: {m}", **tolerance
        )


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
    whole, _ = train(model_of("hkd", shared), [batch_of()], 0, distributed=False)
    (apart, _), _ = run_ranks(rank_trains, "hkd", {"num_negatives": "all"})
    (together, _), _ = run_ranks(rank_trains, "hkd", shared)
    assert_close(together, whole, rtol=1e-5, atol=1e-6)
    name = "criterion.acoustic_projection.weight"
    assert (apart[name] - whole[name]).abs().max() > 1e-3
