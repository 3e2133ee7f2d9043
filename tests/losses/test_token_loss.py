"""Targets and token losses against ESPnet's functions; padding changes nothing."""

import pytest
import torch

from espnet_cif_hkd.losses.token import score_tokens, shift_targets
from espnet_cif_hkd.plugin.compat import LabelSmoothingLoss, add_sos_eos, th_accuracy

IGNORE, VOCAB = -1, 7
LENGTHS = torch.tensor([3, 0, 5])


def texts(extra=0):
    """Three texts, one of them empty, padded ``extra`` further than the longest."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(LENGTHS), int(LENGTHS.max()))
    text = torch.randint(0, VOCAB - 1, shape, generator=generator)
    text = text.masked_fill(torch.arange(shape[1]) >= LENGTHS[:, None], IGNORE)
    return torch.nn.functional.pad(text, (0, extra), value=IGNORE)


def predictions(targets, dtype):
    """Right for some of the targets."""
    generator = torch.Generator().manual_seed(1)
    shape = (*targets.shape, VOCAB)
    right = torch.nn.functional.one_hot(targets.clamp(min=0), VOCAB)
    logits = 3 * torch.randn(shape, generator=generator) + 3 * right
    return logits.to(dtype).requires_grad_()


@pytest.mark.parametrize("sos", [VOCAB - 1, 4])
def test_targets_are_espnets(sos):
    ours = shift_targets(texts(), LENGTHS, sos, VOCAB - 1, IGNORE)
    theirs = add_sos_eos(texts(), sos, VOCAB - 1, IGNORE)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_scores_are_espnets(smoothing, dtype):
    _, targets = shift_targets(texts(), LENGTHS, VOCAB - 1, VOCAB - 1, IGNORE)
    logits = predictions(targets, dtype)
    ours = score_tokens(logits, targets, IGNORE, smoothing)
    exact = logits.detach().double().requires_grad_()
    smoothed = LabelSmoothingLoss(VOCAB, IGNORE, smoothing)
    loss = smoothed(exact, targets) * len(targets)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-5}[dtype]
    assert abs(float((ours.loss - loss).detach())) < tolerance * float(loss.detach())
    (gradient,) = torch.autograd.grad(ours.loss, logits)
    (oracle,) = torch.autograd.grad(loss, exact)
    torch.testing.assert_close(
        gradient, oracle.to(dtype), rtol=tolerance, atol=tolerance
    )
    exact = exact.detach()
    nll = torch.nn.functional.cross_entropy(
        exact.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    assert abs(float(ours.nll) - float(nll)) < tolerance * float(nll)
    accuracy = th_accuracy(exact.flatten(0, 1), targets, IGNORE)
    n_tokens = int(LENGTHS.sum()) + len(LENGTHS)
    assert float(ours.n_correct) / n_tokens == pytest.approx(accuracy)
    assert 0 < accuracy < 1


def test_more_padding_changes_nothing():
    """Values and gradients, whatever finite numbers stand there."""
    results = []
    for extra in (0, 2):
        text = texts(extra)
        ys_in, targets = shift_targets(text, LENGTHS, 4, VOCAB - 1, IGNORE)
        assert (ys_in >= 0).all()
        _, short = shift_targets(texts(), LENGTHS, 4, VOCAB - 1, IGNORE)
        logits = torch.full((*targets.shape, VOCAB), 1e4, dtype=torch.float64)
        n_tokens = short.size(1)
        valid = (short != IGNORE)[..., None]
        logits[:, :n_tokens] = torch.where(
            valid, predictions(short, torch.float64), logits[:, :n_tokens]
        )
        logits = logits.detach().requires_grad_()
        scores = score_tokens(logits, targets, IGNORE, 0.1)
        (gradient,) = torch.autograd.grad(scores.loss, logits)
        assert not gradient[:, n_tokens:].any()
        results.append((scores.loss, scores.nll, scores.n_correct, gradient))
    for one, other in zip(*results, strict=True):
        width = one.size(1) if one.dim() else None
        assert torch.equal(one, other[:, :width] if width else other)


def test_all_mass_on_the_others():
    """``lsm_weight: 1`` is nobody's wish, but has a value."""
    targets = torch.tensor([[2]])
    logits = torch.zeros(1, 1, VOCAB, requires_grad=True)
    scores = score_tokens(logits, targets, IGNORE, 1.0)
    expected = torch.tensor(VOCAB / (VOCAB - 1)).log()
    torch.testing.assert_close(scores.loss, expected)
