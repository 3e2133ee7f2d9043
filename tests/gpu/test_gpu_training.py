"""Training with HKD on a GPU: one rank of a process group; float16 with a scaler."""

import pytest
import torch
import torch.distributed as dist
from ddp_steps import TEACHER_DIM, TableTeacher
from tiny_model import CIF_CONFORMER, tiny_batch, tiny_model

pytestmark = pytest.mark.gpu


def hkd_model(device, **acoustic):
    conf = {"teacher": "replaced", "teacher_dim": TEACHER_DIM}
    conf["acoustic"] = {"temperature": 0.1, "num_negatives": "all", **acoustic}
    model = tiny_model(
        model_conf={"criterion": "hkd", "criterion_conf": conf}, **CIF_CONFORMER
    )
    model.criterion._teacher = TableTeacher(model.vocab_size)
    return model.to(device).train()


def batch(device):
    return {key: value.to(device) for key, value in tiny_batch(6).items()}


def loss_of(model, device):
    loss, stats, weight = model(**batch(device))
    return (loss * weight.to(loss.dtype)).sum() / weight.sum(), stats


@pytest.fixture
def one_rank(device, tmp_path):
    """A process group of this process alone: NCCL on a GPU, gloo on the CPU."""
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=dist.FileStore(str(tmp_path / "store"), 1),
        rank=0,
        world_size=1,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared negatives"])
def test_one_rank_trains_as_no_process_group(device, one_rank, shared):
    model = without_dropout(hkd_model(device, share_negatives=shared)).double()
    model.criterion._teacher.table = model.criterion._teacher.table.double()
    alone = without_dropout(hkd_model(device)).double()
    alone.criterion._teacher.table = alone.criterion._teacher.table.double()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    for way in (wrapped, alone):
        doubled = {
            key: value.double() if value.is_floating_point() else value
            for key, value in batch(device).items()
        }
        loss, _, weight = way(**doubled)
        ((loss * weight.to(loss.dtype)).sum() / weight.sum()).backward()
    found, expected = gradients(model), gradients(alone)
    assert found.keys() == expected.keys() and len(found) > 20
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_amp_training_learns(device, dtype):
    """float16 with GradScaler, as ``use_amp: true`` trains; bfloat16 needs none."""
    model = hkd_model(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    before = [p.detach().clone() for p in model.parameters()]
    losses, skipped = [], 0
    for _ in range(40):
        optimiser.zero_grad()
        with torch.autocast(device, dtype):
            loss, stats = loss_of(model, device)
        assert torch.isfinite(loss), stats
        assert loss.dtype == torch.float32
        scale = scaler.get_scale()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimiser)
        scaler.update()
        skipped += scaler.get_scale() < scale
        losses.append(loss.item())
    assert skipped < 20  # a first scale that is too large costs a few updates
    assert losses[-1] < 0.8 * losses[0]
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.isfinite(new).all() and not torch.equal(old, new)
