"""The best path of a transducer, and a teacher along it, on a GPU."""

import pytest
import torch
from lattices import lattice
from tiny_model import gradients
from tone_teacher import speech_batch, texts_of
from transducer_teacher import HOP, save_teacher, student_of

from espnet_cif_hkd.losses import best_path

pytestmark = pytest.mark.gpu
FRAMES, TOKENS = (12, 1, 5, 9), (6, 3, 0, 11)
FIELDS = ("frames", "tokens", "emits", "lengths")


def on(device, batch):
    return {k: v if isinstance(v, list) else v.to(device) for k, v in batch.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_path_is_that_of_the_cpu(device, dtype):
    logits, *others = lattice(FRAMES, TOKENS, n_vocab=9, dtype=dtype, extra=1)
    expected = best_path(logits.double(), *others)
    logits[1, 1:] = torch.nan  # padding
    with torch.autocast(device, torch.bfloat16):
        found = best_path(*(one.to(device) for one in (logits, *others)))
    for name in FIELDS:
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
    torch.testing.assert_close(
        found.scores.cpu(), expected.scores, rtol=1e-5, atol=1e-5
    )


def test_the_host_does_not_wait_for_the_path(device):
    """torch raises if an operation waits for a value of the GPU."""
    inputs = [one.to(device) for one in lattice(FRAMES, TOKENS)]
    best_path(*inputs)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        path = best_path(*inputs)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert path.lengths.tolist() == [t + u for t, u in zip(FRAMES, TOKENS)]


def test_wrong_values_have_no_path(device):
    logits, targets, frames, tokens = lattice((4, 4, 4, 4), (2, 2, 2, 2))
    frames[0], tokens[1], targets[2, 0] = 5, 3, 0
    given = [one.to(device) for one in (logits, targets, frames, tokens)]
    if device == "cpu":
        with pytest.raises(ValueError, match="logit_lengths must be from 1 to 4"):
            best_path(*given)
        return
    path = best_path(*given)
    assert path.lengths.tolist() == [0, 0, 0, 6]
    assert (path.frames >= 0).all() and path.valid.sum() == 6


@pytest.mark.parametrize("hop", [HOP, HOP // 2])
def test_a_taught_step_gives_what_the_cpu_gives(device, tmp_path, hop):
    folder, _ = save_teacher(tmp_path, hop)
    batch, found = {**speech_batch(), **texts_of()}, []
    for place in ("cpu", device):
        student = student_of(folder).to(place).train()
        loss, stats, _ = student(**on(place, batch))
        loss.sum().backward()
        values = {k: v.cpu() for k, v in stats.items() if k.startswith("path.")}
        found.append((values, {k: v.cpu() for k, v in gradients(student).items()}))
    assert set(found[0][0]) == {"path.loss_path", "path.kl_path", "path.acc_path"}
    for mine, theirs in zip(*found, strict=True):
        for name, value in mine.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_approaches_the_teacher(device, tmp_path, dtype):
    folder, _ = save_teacher(tmp_path)
    batch = on(device, {**speech_batch(), **texts_of()})
    student = student_of(folder, weight=10.0).to(device).train()
    optimiser = torch.optim.Adam(student.parameters(), lr=0.01)
    seen = []
    for _ in range(40):
        optimiser.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss, stats, _ = student(**batch)
        assert torch.isfinite(loss), stats
        loss.sum().backward()
        optimiser.step()
        seen.append(float(stats["path.kl_path"]))
    assert seen[-1] < 0.7 * seen[0]
