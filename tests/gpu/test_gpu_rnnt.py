"""The transducer loss, its search and a training step on a GPU."""

import pytest
import torch
from lattices import lattice, with_gradient
from tiny_model import CIF_CONFORMER, tiny_batch
from transducer_parts import tiny_transducer

from espnet_cif_hkd.losses import rnnt_loss
from espnet_cif_hkd.losses.rnnt_naive import rnnt_loss_naive
from espnet_cif_hkd.search.transducer_greedy import transducer_greedy_search

pytestmark = pytest.mark.gpu
FRAMES, TOKENS = (12, 1, 5, 9), (6, 3, 0, 11)
# Of the gradient; the loss is float32 at least.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 2e-6,
    torch.bfloat16: 4e-3,
    torch.float16: 5e-4,
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_the_loop_in_float64(device, dtype):
    logits, *others = lattice(FRAMES, TOKENS, n_vocab=9, dtype=dtype, extra=1)
    exact = with_gradient(rnnt_loss_naive, logits.double(), *others)
    logits[1, 1:] = torch.nan  # padding
    logits, *others = (one.to(device) for one in (logits, *others))
    with torch.autocast(device, torch.bfloat16):
        losses, gradient = with_gradient(rnnt_loss, logits, *others)
    assert losses.device.type == device and gradient.dtype == dtype
    tight = min(TOLERANCE[dtype], 1e-6)
    torch.testing.assert_close(losses.double().cpu(), exact[0], rtol=tight, atol=1e-5)
    torch.testing.assert_close(
        gradient.double().cpu(),
        exact[1],
        rtol=TOLERANCE[dtype],
        atol=TOLERANCE[dtype],
    )


def test_the_host_does_not_wait(device):
    """torch raises if an operation waits for a value of the GPU."""
    logits, *others = (
        one.to(device) for one in lattice(FRAMES, TOKENS, dtype=torch.float32)
    )
    with_gradient(rnnt_loss, logits, *others)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        _, gradient = with_gradient(rnnt_loss, logits, *others)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert gradient.any()


def test_wrong_values_show_as_nan(device):
    logits, targets, frames, tokens = lattice((4, 4, 4, 4), (2, 2, 2, 2))
    frames[0], tokens[1], targets[2, 0] = 5, 3, 0
    given = [one.to(device) for one in (logits, targets, frames, tokens)]
    if device == "cpu":
        with pytest.raises(ValueError, match="logit_lengths must be from 1 to 4"):
            rnnt_loss(*given)
        return
    assert rnnt_loss(*given).isnan().tolist() == [True, True, True, False]


def test_compiled_equals_eager(device):
    torch._dynamo.reset()
    backend = "inductor" if device == "cuda" else "aot_eager"
    compiled = torch.compile(rnnt_loss, fullgraph=True, backend=backend)
    inputs = [one.to(device) for one in lattice(FRAMES, TOKENS)]
    for found, expected in zip(
        with_gradient(compiled, *inputs), with_gradient(rnnt_loss, *inputs)
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_training_learns_and_the_search_follows(device, dtype):
    model = tiny_transducer(**CIF_CONFORMER).to(device).train()
    batch = {key: value.to(device) for key, value in tiny_batch(4).items()}
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss, stats, _ = model(**batch)
        assert loss.dtype == torch.float32 and torch.isfinite(loss), stats
        scaler.scale(loss.sum()).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(float(stats["loss_transducer"]))
    assert losses[-1] < 0.8 * losses[0]
    model.eval()
    with torch.no_grad():
        _, stats, _ = model(**batch)
        hs, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    assert torch.isfinite(stats["loss"]) and stats["acc"] is not None
    there = transducer_greedy_search(model.decoder, model.joint_network, hs, hlens)
    model.cpu()
    here = transducer_greedy_search(
        model.decoder, model.joint_network, hs.cpu(), hlens.cpu()
    )
    for one, other in zip(there, here, strict=True):
        assert one.yseq.tolist() == other.yseq.tolist()
        assert one.score == pytest.approx(other.score, abs=1e-3)
