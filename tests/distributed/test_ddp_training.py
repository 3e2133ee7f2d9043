"""Training by several processes neither hangs nor asks for unused parameters."""

import argparse

import pytest
import torch
from ddp_steps import batch_of, model_of, seeded, train
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer
from ranks import run_ranks
from tiny_model import CIF_CONFORMER, tiny_config

from espnet_cif_hkd.distill.sharing import gather_over_ranks

pytestmark = pytest.mark.slow

SHARED = {"num_negatives": 6, "share_negatives": True}


def rank_gathers(rank, counts):
    rows = torch.full((counts[rank], 2), float(rank), requires_grad=True)
    gathered, first = gather_over_ranks(rows)
    return gathered.tolist(), first, gathered.requires_grad


@pytest.mark.parametrize("counts", [(3, 1), (2, 0, 3), (0, 0)])
def test_ranks_give_different_numbers_of_rows(counts):
    results = run_ranks(rank_gathers, counts, world_size=len(counts))
    every = [
        [float(r), float(r)] for r, count in enumerate(counts) for _ in range(count)
    ]
    for rank, (gathered, first, differentiable) in enumerate(results):
        assert gathered == every
        assert first == sum(counts[:rank])
        assert not differentiable


def test_one_process_has_nobody_to_share_with():
    rows = torch.ones(3, 2)
    assert gather_over_ranks(rows) == (rows, 0)
    (alone,) = run_ranks(rank_gathers, (4,), world_size=1)
    assert alone[:2] == ([[0.0, 0.0]] * 4, 0)
    apart, shared = (
        train(
            model_of("hkd", SHARED | {"share_negatives": share}), [batch_of()], 5, False
        )
        for share in (False, True)
    )
    assert apart[1]["loss_acd"] == shared[1]["loss_acd"]


def rank_trains_and_validates(rank, system, encoder):
    """Rank 1 has a batch less: ESPnet's trainer stops all ranks together."""
    model = model_of(system, SHARED if system in ("acd", "hkd") else None, **encoder)
    training = [batch_of([rank, 2 + rank, 4], seed) for seed in range(4 - rank)]
    moved, _ = train(model, training, seed=rank, distributed=True)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    reporter = Reporter()
    reporter.set_epoch(1)
    with reporter.observe("valid") as sub_reporter:
        Trainer.validate_one_epoch(
            model=wrapped,
            iterator=seeded([batch_of([rank, 5], n) for n in range(1 + rank)], 0),
            reporter=sub_reporter,
            options=Trainer.build_options(
                argparse.Namespace(**{**tiny_config(), "ngpu": 0})
            ),
            distributed_option=DistributedOption(distributed=True),
        )
    if rank == 0:
        # ESPnet plots attention on this rank only, by the bare model.
        with torch.no_grad():
            model(**batch_of([0]))
    torch.distributed.barrier()
    batches = int(reporter.stats[1]["valid"]["total_count"])
    return moved, batches, dict(model.named_buffers())


CONFORMER = {
    "encoder": "conformer",
    "encoder_conf": {
        "input_layer": "linear",
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
        "cnn_module_kernel": 3,
    },
}


@pytest.mark.parametrize(
    ("system", "encoder"),
    [
        *(("cif", {}), ("acd", {}), ("lrd", {}), ("hkd", {})),
        *(("hkd", CONFORMER), ("hkd", CIF_CONFORMER)),
    ],
)
def test_every_parameter_is_used_and_nobody_waits(system, encoder):
    first, second = run_ranks(rank_trains_and_validates, system, encoder)
    assert first[1] == second[1] == 1  # the batches that both had
    for name, moved in first[0].items():
        assert torch.isfinite(moved).all(), name
        assert torch.equal(moved, second[0][name]), name
    assert sum(moved.abs().max() > 1e-6 for moved in first[0].values()) > 20
    # Batch statistics are those of the first rank, which saves the model.
    for name, value in first[2].items():
        assert torch.equal(value, second[2][name]), name


def rank_zero_runs_alone(rank, system, acoustic, training):
    loss = loss_alone(system, acoustic, training) if rank == 0 else None
    torch.distributed.barrier()
    return loss


@torch.no_grad()
def loss_alone(system, acoustic, training):
    return float(model_of(system, acoustic).train(training)(**batch_of([0, 1]))[0])


@pytest.mark.parametrize(
    ("system", "training"), [("lrd", True), ("hkd", False), ("cif", True)]
)
def test_no_collective_without_the_acoustic_level_or_in_validation(system, training):
    acoustic = SHARED if system == "hkd" else None
    alone, _ = run_ranks(rank_zero_runs_alone, system, acoustic, training)
    assert alone == pytest.approx(loss_alone(system, acoustic, training))


def rank_asks_for_unused(rank):
    """What DDP says of a parameter that no loss reaches; the tests above rely on it."""
    model = model_of("hkd", SHARED)
    model.criterion.unused = torch.nn.Linear(2, 2)
    try:
        train(model, [batch_of([rank], seed) for seed in range(2)], 0, distributed=True)
    except RuntimeError as error:
        return str(error)
    return ""


def test_an_unused_parameter_would_be_reported():
    for message in run_ranks(rank_asks_for_unused):
        assert "find_unused_parameters=True" in message
