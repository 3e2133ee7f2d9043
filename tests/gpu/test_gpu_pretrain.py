"""Stage 1 on a GPU: the criterion ``frames`` with stored targets of two teachers."""

import pytest
import torch
from tiny_model import gradients
from tone_teacher import pretrain_model, recordings_of, speech_batch, stored

pytestmark = pytest.mark.gpu
OPTIONS = [{}, {"match": "mean", "loss": "l1_cosine"}, {"combine": "average"}]


@pytest.fixture
def two(tmp_path):
    batch = speech_batch()
    teachers = {
        name: stored(
            tmp_path / name, recordings_of(batch), teacher_conf={"seed": len(name)}
        )
        for name in ("one", "three")
    }
    return teachers, batch


def on(device, batch):
    return {k: v if isinstance(v, list) else v.to(device) for k, v in batch.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=["heads", "mean", "average"])
def test_a_step_gives_what_the_cpu_gives(device, two, options):
    teachers, batch = two
    found = []
    for place in ("cpu", device):
        model = pretrain_model(teachers, **options).to(place).train()
        loss, stats, weight = model(**on(place, batch))
        assert loss.device.type == place
        loss.backward()
        values = {k: torch.as_tensor(v).cpu().float() for k, v in stats.items()}
        given = {k: v.cpu() for k, v in gradients(model).items()}
        found.append((loss.detach().cpu(), values, int(weight), given))
    (loss, stats, weight, given), (other, others, count, theirs) = found
    torch.testing.assert_close(loss, other, rtol=1e-4, atol=1e-5)
    assert weight == count > 20 and stats.keys() == others.keys()
    for name, value in stats.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)
    for name, value in given.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_beats_the_constant_predictor(device, two, dtype):
    teachers, batch = two
    model, batch = pretrain_model(teachers).to(device).train(), on(device, batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss, stats, _ = model(**batch)
        assert loss.dtype == torch.float32 and torch.isfinite(loss), stats
        loss.backward()
        optimiser.step()
    for name in teachers:
        assert stats[f"frames.loss_{name}"] < stats[f"frames.loss_trivial_{name}"]
        assert 0 < stats[f"frames.explained_{name}"] < 1
