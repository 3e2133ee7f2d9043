"""Criteria that start late: exact counts of updates, on resume and on all ranks."""

import argparse
import copy
import itertools
from pathlib import Path

import pytest
import recorder
import torch
from ddp_steps import SHARES, assert_close, batch_of, seeded
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer
from espnet_parts import HYBRID
from ranks import run_ranks
from tiny_model import gradients, tiny_batch, tiny_config, tiny_model

assert recorder  # registers "mean_frame"
SCHEDULE = {"start": 2, "ramp": 4}
FACTORS = [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def model_of(dtype=torch.float64, changes=None, **options):
    """With ``mean_frame`` on the first layer under the name ``late``."""
    criteria = {"late": {"type": "mean_frame", "weight": 3.0, **options}}
    return tiny_model(model_conf={"criteria": criteria}, **(changes or {})).to(dtype)


def epoch(model, batches, optimizer=None, scaler=None, accum_grad=1, wrapped=None):
    """One epoch of ESPnet's own trainer; the logged factor of each batch."""
    found = []
    forward = model.forward

    def logged(**batch):
        loss, stats, weight = forward(**batch)
        found.append(stats.get("late.schedule"))
        return loss, stats, weight

    model.forward = logged
    changes = {"ngpu": 0, "grad_clip": 1e9, "accum_grad": accum_grad}
    options = Trainer.build_options(argparse.Namespace(**{**tiny_config(), **changes}))
    reporter = Reporter()
    reporter.set_epoch(1)
    with reporter.observe("train") as sub_reporter:
        Trainer.train_one_epoch(
            model=wrapped or model,
            iterator=seeded(batches, 0),
            optimizers=[optimizer or torch.optim.SGD(model.parameters(), lr=0.01)],
            schedulers=[None],
            scaler=scaler,
            reporter=sub_reporter,
            summary_writer=None,
            options=options,
            distributed_option=DistributedOption(distributed=wrapped is not None),
        )
    del model.forward
    return [None if value is None else float(value) for value in found]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, HYBRID], ids=["cif", "hybrid"])
@pytest.mark.parametrize("accum_grad", [1, 3])
def test_updates_are_counted_not_batches(accum_grad, changes):
    model = model_of(changes=changes, **SCHEDULE)
    found = epoch(model, [batch_of()] * 8 * accum_grad, accum_grad=accum_grad)
    assert found == [f for f in FACTORS for _ in range(accum_grad)]
    assert model.state_dict()["schedule.updates"] == 8


def test_a_batch_left_over_at_the_end_of_an_epoch_is_no_update():
    model = model_of(**SCHEDULE)
    epoch(model, [batch_of()] * 5, accum_grad=2)
    assert model.schedule.updates == 2
    epoch(model, [batch_of()] * 2, accum_grad=2)
    assert model.schedule.updates == 3


@pytest.mark.filterwarnings("ignore:No valid stats:UserWarning")
def test_a_step_that_is_skipped_for_its_gradients_is_no_update():
    """As a gradient scaler, ESPnet's trainer skips steps with NaN."""
    model = model_of(**SCHEDULE)
    broken = {k: v.clone() for k, v in batch_of().items()}
    broken["speech"][:] = float("nan")
    epoch(model, [batch_of(), batch_of()])
    trained = copy.deepcopy(model.state_dict())
    epoch(model, [broken, broken])
    assert model.schedule.updates == 2
    for name, value in trained.items():
        assert torch.equal(value, model.state_dict()[name])


def test_only_updates_of_this_model_count():
    model, other = model_of(**SCHEDULE), model_of(**SCHEDULE)
    copied = copy.deepcopy(other)
    epoch(other, [batch_of()] * 3)
    assert (model.schedule.updates, other.schedule.updates) == (0, 3)
    epoch(copied, [batch_of()])
    assert (copied.schedule.updates, other.schedule.updates) == (1, 3)


def test_a_step_that_a_gradient_scaler_skips_is_no_update():
    model = model_of(torch.float32, **SCHEDULE).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38, backoff_factor=1e-38)
    for _ in range(2):  # the first gradients overflow
        optimizer.zero_grad()
        scaler.scale(model(**tiny_batch())[0].sum() * 1e5).backward()
        scaler.step(optimizer)
        scaler.update()
    assert model.schedule.updates == 1


@pytest.mark.slow
def test_the_loss_has_the_weight_of_the_schedule():
    def loss_after(updates, **options):
        model = model_of(**options).train()
        if model.schedule is not None:
            model.schedule.updates = updates
        loss, stats, _ = model(**batch_of())
        loss.sum().backward()
        return loss.item(), stats, gradients(model)

    full, full_stats, full_grad = loss_after(0)
    none, stats, none_grad = loss_after(0, **SCHEDULE)
    plain = tiny_model().double().train()
    plain.load_state_dict(model_of().state_dict(), strict=False)
    assert none == plain(**batch_of())[0].item()
    assert "late.loss_frame" not in stats, "it was computed"
    assert not none_grad["criteria.late.project.weight"].any()
    for updates, factor in enumerate(FACTORS):
        loss, _, grad = loss_after(updates, **SCHEDULE)
        assert loss == pytest.approx(none + factor * (full - none), rel=1e-12)
        expected = {k: none_grad[k].lerp(g, factor) for k, g in full_grad.items()}
        assert_close(grad, expected, rtol=1e-9, atol=1e-12)
    assert full_stats["late.loss_frame"] > 0


def test_validation_has_the_final_weight_from_the_start():
    late, now = model_of(**SCHEDULE).eval(), model_of().eval()
    (loss, stats, _), (expected, expected_stats, _) = (
        model(**batch_of()) for model in (late, now)
    )
    assert loss == expected and stats.keys() == expected_stats.keys()


@pytest.mark.slow
def test_a_resumed_training_continues_the_schedule(tmp_path):
    """With ESPnet's checkpoint; the steps are those of a training in one piece."""
    whole = model_of(**SCHEDULE)
    assert epoch(whole, [batch_of()] * 8) == FACTORS
    first = model_of(**SCHEDULE)
    epoch(first, [batch_of()] * 4)
    torch.save(checkpoint_of(first), tmp_path / "checkpoint.pth")
    second = model_of(**SCHEDULE)
    resume(second, tmp_path)
    assert epoch(second, [batch_of()] * 4) == FACTORS[4:]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def checkpoint_of(model):
    reporter = Reporter()
    return {
        "model": model.state_dict(),
        "reporter": reporter.state_dict(),
        "optimizers": [],
        "schedulers": [],
        "scaler": None,
    }


def resume(model, folder: Path):
    Trainer.resume(
        checkpoint=folder / "checkpoint.pth",
        model=model,
        reporter=Reporter(),
        optimizers=[],
        schedulers=[],
        scaler=None,
    )


def test_a_checkpoint_without_the_count_still_resumes_and_decodes(tmp_path):
    """That of 0.3, or of a training without a schedule; strictly, as ESPnet does."""
    old = model_of()
    assert "schedule.updates" not in old.state_dict()
    torch.save(checkpoint_of(old), tmp_path / "checkpoint.pth")
    new = model_of(**SCHEDULE)
    new.schedule.updates = 5
    resume(new, tmp_path)
    assert new.schedule.updates == 0
    tiny_model().double().load_state_dict(new.state_dict(), strict=False)
    new.load_state_dict(tiny_model().double().state_dict(), strict=False)


def test_the_count_survives_averaging_and_other_precisions():
    model = model_of(**SCHEDULE)
    model.schedule.updates = 123_457
    states = model.half().state_dict()
    states = {name: value + value for name, value in states.items()}
    states = {
        name: value / 2 if value.is_floating_point() else value
        for name, value in states.items()
    }
    again = model_of(**SCHEDULE)
    again.load_state_dict(states)
    assert again.schedule.updates == 123_457


def rank_trains(rank):
    """Without unused parameters: DDP waits for each gradient."""
    model = model_of(max_share=0.5, **SCHEDULE)
    wrapped = torch.nn.parallel.DistributedDataParallel(
        model, find_unused_parameters=False, gradient_as_bucket_view=True
    )
    found = epoch(model, [batch_of(SHARES[rank])] * 5, wrapped=wrapped)
    return found, model.state_dict()


@pytest.mark.slow
def test_all_processes_have_the_same_schedule():
    (first, state), (second, other) = run_ranks(rank_trains)
    assert first == second == FACTORS[:5]
    assert state["schedule.updates"] == other["schedule.updates"] == 5
    for name, value in state.items():
        assert torch.equal(value, other[name]), name


def test_the_step_waits_no_more_for_the_device():
    """The count is on the host, the bound on the device."""
    from host_reads import Copies, Reads

    found = []
    for options in ({}, {**SCHEDULE, "max_share": 0.5}):
        model = model_of(torch.float32, **options).train()
        if model.schedule is not None:
            model.schedule.updates = 100
        for _ in range(2):
            reading = Reads()
            with Copies(reading.found), reading:
                model(**tiny_batch())[0].sum().backward()
        found.append(reading.found)
    assert found[0] == found[1]


def test_a_bound_and_a_schedule_work_together():
    model = model_of(max_share=1e-3, **SCHEDULE)
    factors = epoch(model, [batch_of()] * 8)
    assert factors == FACTORS
    assert all(a <= b for a, b in itertools.pairwise(factors))
