"""Mixed precision with a loss scale: firing and losses stay in float32."""

import pytest
import torch
from tiny_model import CIF_CONFORMER, tiny_batch, tiny_model

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.losses import contrastive_loss, regression_loss
from espnet_cif_hkd.losses.token import score_tokens

DTYPES = [torch.float16, torch.bfloat16]
LENGTHS, TARGETS = torch.tensor([40, 33]), torch.tensor([9, 4])


def low(generator, *shape, dtype):
    return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_on_16_bits_give_float32_sums(dtype):
    generator = torch.Generator().manual_seed(0)
    hs = low(generator, 2, 40, 8, dtype=dtype)
    student = low(generator, 2, 9, 8, dtype=dtype)
    logits = low(generator, 2, 9, 12, dtype=dtype)
    alpha = torch.rand(2, 40, generator=generator).requires_grad_()
    targets = torch.randint(12, (2, 9), generator=generator)
    with torch.autocast("cpu", dtype):
        fired = integrate_and_fire(hs, alpha, LENGTHS, TARGETS)
        losses = [
            fired.quantity,
            contrastive_loss(student, student.detach() + 1, TARGETS, 0.02, None)[0],
            regression_loss(student, student.detach() + 100, TARGETS),
            score_tokens(logits, targets, -1, 0.1).loss,
        ]
    assert fired.embeddings.dtype == dtype and fired.alpha.dtype == torch.float64
    for loss in losses:
        assert loss.dtype == torch.float32 and loss.isfinite().all()
    # 8 · 100² is beyond the largest float16.
    assert float(losses[2].detach().max()) > 65504
    # A loss scale that overflows float16 reaches float32 gradients unharmed.
    fired.embeddings.float().square().sum().mul(2.0**10).backward()
    assert alpha.grad.dtype == torch.float32 and alpha.grad.isfinite().all()
    assert hs.grad.dtype == dtype


def step(model, scaler, optimizer, dtype, spoil=False):
    batch = tiny_batch(seed=1)
    with torch.autocast("cpu", dtype):
        loss, *_ = model(**batch)
    assert loss.dtype == torch.float32
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    if spoil:
        model.decoder.predictor.conv.weight.grad[0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    return float(loss.detach())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("changes", [{}, CIF_CONFORMER], ids=["espnet", "ours"])
def test_training_with_a_scaler(changes, dtype):
    model = tiny_model(**changes).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    losses = [step(model, scaler, optimizer, dtype) for _ in range(10)]
    assert all(torch.isfinite(torch.tensor(losses))) and losses[-1] < losses[0]
    assert scaler.get_scale() == 2.0**12  # grew twice, never fell


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scaled_gradient_is_the_gradient_times_the_scale(dtype):
    gradients = []
    for scale in (1.0, 2.0**8):
        model = tiny_model().train()
        with torch.autocast("cpu", dtype):
            loss, *_ = model(**tiny_batch(seed=1))
        (loss * scale).backward()
        gradients.append(
            torch.cat([p.grad.flatten() / scale for p in model.parameters()])
        )
    norm = gradients[0].norm()
    assert float((gradients[0] - gradients[1]).norm() / norm) < 0.02


def test_a_step_with_infinity_is_skipped_and_the_next_one_counts():
    model = tiny_model().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    before = [p.detach().clone() for p in model.parameters()]
    step(model, scaler, optimizer, torch.float16, spoil=True)
    assert scaler.get_scale() == 2.0**7
    assert all(map(torch.equal, before, model.parameters()))
    step(model, scaler, optimizer, torch.float16)
    assert not all(map(torch.equal, before, model.parameters()))
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_scale_that_overflows_float16_is_noticed():
    """Infinite gradients of 16-bit layers stay visible: the scaler falls."""
    model = tiny_model(**CIF_CONFORMER).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [p.detach().clone() for p in model.parameters()]
    step(model, scaler, optimizer, torch.float16)
    assert scaler.get_scale() == 2.0**39
    assert all(map(torch.equal, before, model.parameters()))
