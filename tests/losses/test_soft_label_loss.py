"""The loss of soft labels against loops in float64."""

import math

import pytest
import torch

from espnet_cif_hkd.losses.soft_labels import interpolation_term, soft_label_loss
from espnet_cif_hkd.losses.soft_labels_naive import (
    interpolated_loss_naive,
    soft_label_loss_naive,
)
from espnet_cif_hkd.losses.token import score_tokens

N, V, K = 6, 9, 4


def rows(n=N, v=V, k=K, seed=0, dtype=torch.float64):
    """Logits, ids and probabilities of the k most probable classes of a teacher."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, v, generator=generator, dtype=torch.float64)
    teacher = 2 * torch.randn(n, v, generator=generator, dtype=torch.float64)
    probabilities, ids = teacher.softmax(-1).topk(k, -1)
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return logits.to(dtype).requires_grad_(), ids, probabilities


OPTIONS = [(1.0, False), (3.0, False), (3.0, True), (0.5, True)]


@pytest.mark.parametrize(("temperature", "square"), OPTIONS)
@pytest.mark.parametrize("k", [1, K, V])
def test_loss_and_gradient_equal_a_loop(k, temperature, square):
    logits, ids, probabilities = rows(k=k)
    found = soft_label_loss(logits, ids, probabilities, temperature, square)
    expected = soft_label_loss_naive(logits, ids, probabilities, temperature, square)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(1, 2, N, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((weights * loss).sum(), logits)[0]
        for loss in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: soft_label_loss(x, ids, probabilities, temperature, square), logits
    )


@pytest.mark.parametrize(("temperature", "square"), OPTIONS)
def test_the_gradient_has_the_documented_size(temperature, square):
    logits, ids, probabilities = rows()
    loss = soft_label_loss(logits, ids, probabilities, temperature, square)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    target = torch.zeros(N, V, dtype=torch.float64).scatter(1, ids, probabilities)
    difference = (logits / temperature).softmax(-1) - target
    factor = temperature if square else 1 / temperature
    torch.testing.assert_close(gradient, factor * difference)


def test_all_classes_are_the_full_distribution():
    logits, _, _ = rows()
    teacher = torch.randn(N, V, dtype=torch.float64).softmax(-1)
    probabilities, ids = teacher.topk(V, -1)
    full = torch.nn.functional.cross_entropy(logits, teacher, reduction="none")
    torch.testing.assert_close(soft_label_loss(logits, ids, probabilities), full)


def test_labels_with_probability_0_have_no_effect():
    """So a row with fewer labels than K, or than V, is filled; -inf logits, too."""
    logits, ids, probabilities = rows(k=2)
    expected = soft_label_loss(logits, ids, probabilities)
    more_ids = torch.cat([ids, torch.zeros(N, V, dtype=torch.long)], 1)
    more = torch.cat([probabilities, torch.zeros(N, V, dtype=torch.float64)], 1)
    assert more.size(1) > V
    torch.testing.assert_close(soft_label_loss(logits, more_ids, more), expected)
    excluded = logits.detach().clone()
    excluded[:, 0] = -math.inf
    kept = ids.masked_fill(ids == 0, 1)
    ids_0 = torch.cat([kept, torch.zeros(N, 1, dtype=torch.long)], 1)
    none = torch.zeros(N, 1, dtype=torch.float64)
    excluded.requires_grad_()
    loss = soft_label_loss(excluded, ids_0, torch.cat([probabilities, none], 1))
    loss.sum().backward()
    assert loss.isfinite().all()
    torch.testing.assert_close(loss, soft_label_loss(excluded, kept, probabilities))
    assert excluded.grad.isfinite().all()


def test_rows_of_any_shape_and_none():
    logits, ids, probabilities = rows()
    flat = soft_label_loss(logits, ids, probabilities)
    shaped = soft_label_loss(
        logits.view(2, 3, V), ids.view(2, 3, K), probabilities.view(2, 3, K)
    )
    assert torch.equal(shaped.flatten(), flat)
    none = soft_label_loss(logits[:0], ids[:0], probabilities[:0])
    assert none.shape == (0,)
    assert torch.autograd.grad(none.sum(), logits)[0].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_float32_also_for_lower_precision(dtype, temperature):
    """The only rounding is that of the logits."""
    logits, ids, probabilities = rows(dtype=dtype)
    probabilities = probabilities.float()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = soft_label_loss(logits, ids, probabilities, temperature)
        term = interpolation_term(logits, ids[:, 0], ids, probabilities)
    assert loss.dtype == term.dtype == torch.float32
    exact = logits.detach().double()
    expected = soft_label_loss_naive(exact, ids, probabilities.double(), temperature)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=1e-5)
    loss.sum().backward()
    assert logits.grad.dtype == dtype


def test_the_labels_get_no_gradient():
    logits, ids, probabilities = rows()
    probabilities.requires_grad_()
    soft_label_loss(logits, ids, probabilities).sum().backward()
    assert probabilities.grad is None


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_interpolation_equals_the_weighted_sum(share, smoothing):
    """H + c (S - H), with the model's own hard loss H, in value and gradient."""
    logits, ids, probabilities = rows()
    targets = torch.tensor([0, 1, 2, 3, 4, 8])
    scores = score_tokens(logits[None], targets[None], -1, smoothing)
    term = interpolation_term(logits, targets, ids, probabilities, smoothing)
    found = scores.loss + share * term.sum()
    expected = interpolated_loss_naive(
        logits, targets, ids, probabilities, share, smoothing
    ).sum()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (
        torch.autograd.grad(loss, logits, retain_graph=True)[0]
        for loss in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_vocabulary_of_one_class():
    logits = torch.randn(2, 1, requires_grad=True)
    ids, certain = torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1)
    for loss in (
        soft_label_loss(logits, ids, certain),
        interpolation_term(logits, ids[:, 0], ids, certain),
    ):
        torch.testing.assert_close(loss, torch.zeros(2))
