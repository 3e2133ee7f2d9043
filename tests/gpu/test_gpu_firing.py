"""Integrate-and-fire on a GPU against the loop in float64, gradients included."""

import functools
from fractions import Fraction

import pytest
import torch

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.naive import integrate_and_fire_naive

pytestmark = pytest.mark.gpu
N_BATCH, N_FRAMES, N_DIM = 6, 120, 16
# Relative and absolute: half the spacing of a dtype, summed over a few frames.
TOLERANCE = {
    torch.float64: 1e-8,  # the loop guards the division of the tail by 1e-10
    torch.float32: 2e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}
MODES = ("scaled", "tail", "no tail")


def inputs(dtype):
    """Frames in a dtype and weights in at least float32; lengths differ."""
    generator = torch.Generator().manual_seed(5)
    hs = torch.randn(N_BATCH, N_FRAMES, N_DIM, generator=generator).to(dtype)
    alpha = torch.rand(N_BATCH, N_FRAMES, generator=generator)
    alpha = alpha.to(torch.promote_types(dtype, torch.float32))
    alpha[0, 7] = 3.4  # three firings in one frame
    lengths = torch.tensor([N_FRAMES, 97, 64, 120, 1, 33])
    targets = torch.tensor([40, 97, 0, 11, 3, 20])
    return hs, alpha, lengths, targets


def options(mode, targets, device):
    return {
        "scaled": {"target_lengths": targets.to(device)},
        "tail": {"tail_threshold": 0.45},
        "no tail": {"tail_threshold": None},
    }[mode]


def pull(n_tokens):
    """A gradient that is different everywhere, and exact in every dtype."""
    generator = torch.Generator().manual_seed(6)
    return torch.randint(-4, 5, (N_BATCH, n_tokens, N_DIM), generator=generator) / 2


@functools.cache
def oracle(mode, dtype):
    """The loop over frames in float64, on the CPU: rows, times and gradients."""
    hs, alpha, lengths, targets = inputs(dtype)
    hs, alpha = hs.double().requires_grad_(), alpha.double().requires_grad_()
    rows, times = integrate_and_fire_naive(
        hs, alpha, lengths, **options(mode, targets, "cpu")
    )
    weights = pull(max(map(len, rows))).double()
    sum((r * w[: len(r)]).sum() for r, w in zip(rows, weights, strict=True)).backward()
    return [row.detach() for row in rows], times, hs.grad, alpha.grad


def error(found, expected):
    """Norm of the difference, relative to that of what is expected."""
    found = found.detach().double().cpu()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_loop_in_float64(device, mode, dtype):
    rows, times, hs_grad, alpha_grad = oracle(mode, dtype)
    hs, alpha, lengths, targets = inputs(dtype)
    hs = hs.to(device).requires_grad_()
    alpha = alpha.to(device).requires_grad_()
    fired = integrate_and_fire(
        hs, alpha, lengths.to(device), **options(mode, targets, device)
    )
    assert fired.embeddings.dtype == dtype and fired.embeddings.device.type == device
    assert fired.lengths.tolist() == [len(row) for row in rows]
    for b, row in enumerate(rows):
        assert (fired.embeddings[b, len(row) :] == 0).all()
        if len(row):
            assert error(fired.embeddings[b, : len(row)], row) < TOLERANCE[dtype]
        at = fired.firing_times[b, : len(row)].tolist()
        assert at == pytest.approx(times[b], abs=1e-6)
    fired.embeddings.backward(pull(fired.embeddings.size(1)).to(hs))
    assert error(hs.grad, hs_grad) < TOLERANCE[dtype]
    assert error(alpha.grad, alpha_grad) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_training_fires_exactly_the_targets(device, dtype):
    """Every token holds one unit, whatever the dtype of the weights."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        n_frames = int(torch.randint(1, 400, (), generator=generator))
        lengths = torch.randint(1, n_frames + 1, (8,), generator=generator)
        targets = torch.randint(1, n_frames + 3, (8,), generator=generator)
        alpha = torch.rand(8, n_frames, generator=generator).to(device, dtype)
        hs = torch.ones(8, n_frames, 1, device=device)
        fired = integrate_and_fire(hs, alpha, lengths.to(device), targets.to(device))
        assert fired.lengths.tolist() == targets.tolist()
        mass = fired.embeddings[..., 0].cpu()
        valid = torch.arange(mass.size(1))[None] < targets[:, None]
        # An utterance whose few weights are all rounded to zero has nothing to scale.
        silent = alpha.cpu().double().cumsum(1).gather(1, lengths[:, None] - 1) == 0
        valid &= ~silent
        assert ((mass - 1).abs()[valid] < 1e-5).all()


def exact_count(alpha, threshold):
    """Tokens that fire, in exact arithmetic; a sum within 1e-6 of an integer is one."""
    total = sum(map(Fraction, alpha.double().tolist()), Fraction())
    whole = (total + Fraction(1, 1_000_000)).__floor__()
    return whole + (threshold is not None and total - whole > Fraction(threshold))


@pytest.mark.parametrize("threshold", [0.5, None], ids=["tail", "no tail"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_search_fires_what_exact_arithmetic_counts(device, dtype, threshold):
    """Sums that are meant to be integers, and sums that are not."""
    generator = torch.Generator().manual_seed(2)
    rows = [torch.rand(700, generator=generator) for _ in range(12)]
    rows += [torch.full((700,), 1 / n) for n in (3, 7, 10, 100)]
    alpha = torch.stack(rows).to(dtype)
    expected = [exact_count(row, threshold) for row in alpha]
    lengths = torch.full((len(rows),), 700)
    hs = torch.ones(len(rows), 700, 1)
    fired = integrate_and_fire(
        hs.to(device),
        alpha.to(device),
        lengths.to(device),
        tail_threshold=threshold,
    )
    assert fired.lengths.tolist() == expected
    assert 6 <= min(expected) <= 7
