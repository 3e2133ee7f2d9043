"""CTC's forced alignment by enumeration of all paths, and the guide by hand."""

import itertools
import math

import pytest
import torch
from ctc_paths import FRAMES, SENTENCES, VOCAB, collapsed

from espnet_cif_hkd.losses.ctc_guide import (
    ctc_drift,
    ctc_guide_loss,
    ctc_spike_loss,
    ctc_spikes,
)
from espnet_cif_hkd.losses.ctc_path import ctc_free_spikes, dense_free_spikes


def oracle(logp, tokens):
    """Spikes of the best of all paths that spell ``tokens``; ``logp (T, V)``."""
    paths = [
        path
        for path in itertools.product(range(VOCAB), repeat=len(logp))
        if collapsed(path) == tokens
    ]
    if not paths:
        return [-1] * len(tokens)
    score = {p: sum(float(logp[t, v]) for t, v in enumerate(p)) for p in paths}
    best = max(paths, key=score.__getitem__)
    found, t = [], 0
    for value, group in itertools.groupby(best):
        span = range(t, t + len(list(group)))
        t = span.stop
        if value != 0:
            found.append(max(span, key=lambda t, v=value: float(logp[t, v])))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_spikes_are_those_of_the_best_of_all_paths(seed):
    generator = torch.Generator().manual_seed(seed)
    logp = torch.randn(6, 6, VOCAB, generator=generator).mul(2).log_softmax(-1)
    expected = [
        oracle(logp[b, :n], tokens)
        for b, (n, tokens) in enumerate(zip(FRAMES, SENTENCES, strict=True))
    ]
    assert expected[-1] == [-1] * 7 and expected[-2] == [-1] * 3
    assert all(t >= 0 for found in expected[:-2] for t in found)
    for b, n in enumerate(FRAMES):
        logp[b, n:] = float("nan")
    ys_pad = torch.full((6, 7), -1)
    for b, tokens in enumerate(SENTENCES):
        ys_pad[b, : len(tokens)] = torch.tensor(tokens)
    ys_lens = torch.tensor([len(tokens) for tokens in SENTENCES])
    found = ctc_spikes(logp, torch.tensor(FRAMES), ys_pad, ys_lens)
    for b, spikes in enumerate(expected):
        assert found[b].tolist() == spikes + [-1] * (7 - len(spikes))


def label_by_hand(logp, threshold):
    """The label of a frame, ``logp (V,)``."""
    if threshold is None:
        return int(logp.argmax())
    is_token = float(logp[1:].exp().sum()) > threshold
    return 1 + int(logp[1:].argmax()) if is_token else 0


def free_by_hand(logp, threshold):
    """Spikes of the best path, ``logp (T, V)``, and its tokens."""
    best = [label_by_hand(one, threshold) for one in logp]
    found, tokens, t = [], [], 0
    for value, group in itertools.groupby(best):
        span = range(t, t + len(list(group)))
        t = span.stop
        if value != 0:
            found.append(max(span, key=lambda t, v=value: float(logp[t, v])))
            tokens.append(value)
    return found, tokens


def check_free_spikes(logp, hlens, threshold=None):
    """Compare both forms with a loop, for any padding; return its results."""
    expected = [
        free_by_hand(logp[b, :n], threshold) for b, n in enumerate(hlens.tolist())
    ]
    for b, n in enumerate(hlens.tolist()):
        logp[b, n:] = float("nan")
    spikes, lengths = ctc_free_spikes(logp, hlens, threshold=threshold)
    assert lengths.tolist() == [len(found) for found, _ in expected]
    assert lengths[3] == 0 < lengths[0]
    dense = dense_free_spikes(logp, hlens, threshold=threshold)
    for b, (found, _) in enumerate(expected):
        assert dense[b].nonzero().flatten().tolist() == found
        assert spikes[b].tolist() == found + [-1] * (spikes.size(1) - len(found))
    return expected


@pytest.mark.parametrize("seed", range(5))
def test_spikes_without_a_transcript(seed):
    generator = torch.Generator().manual_seed(seed)
    logp = torch.randn(4, 30, VOCAB, generator=generator).mul(2).log_softmax(-1)
    logp[0, 3:6] = logp[0, 3]  # equal frames: the first is the spike
    logp[3, :9] = torch.tensor([1.0] + [0.0] * (VOCAB - 1)).log_softmax(-1)
    hlens = torch.tensor([30, 17, 1, 9])
    expected = check_free_spikes(logp, hlens)
    for b, (found, tokens) in enumerate(expected):
        # The forced alignment of its own tokens has the same spikes.
        if tokens and hlens[b] > 1:
            one = slice(b, b + 1)
            ys, n_tokens = torch.tensor([tokens]), torch.tensor([len(tokens)])
            forced = ctc_spikes(logp[one], hlens[one], ys, n_tokens)
            assert forced[0].tolist() == found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_spikes_where_all_tokens_together_are_likely(seed, threshold):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 30, VOCAB, generator=generator).mul(2)
    logits[..., 0] += 3.0  # often the likeliest label, with less than half
    logits[3, :9] = torch.tensor([4.0] + [0.0] * (VOCAB - 1))
    logp = logits.log_softmax(-1)
    best = ctc_free_spikes(logp, torch.tensor([30, 17, 1, 9]))[1]
    expected = check_free_spikes(logp, torch.tensor([30, 17, 1, 9]), threshold)
    if threshold < 0.5:
        assert len(expected[0][0]) > best[0]


def test_no_frames_have_no_spikes():
    spikes, lengths = ctc_free_spikes(torch.zeros(2, 0, VOCAB), torch.zeros(2).long())
    assert spikes.shape == (2, 0) and lengths.tolist() == [0, 0]


def test_without_tokens_there_are_no_spikes():
    logp = torch.randn(2, 4, VOCAB).log_softmax(-1)
    none = torch.zeros(2, dtype=torch.long)
    assert ctc_spikes(logp, none + 4, none.new_zeros(2, 0), none).shape == (2, 0)


def by_hand(alpha, spikes, slack):
    total = 0.0
    for b, row in enumerate(spikes):
        for u, t in enumerate(row):
            if t >= 0:
                reached = float(sum(alpha[b, :t])) + float(alpha[b, t]) / 2
                total += max(0.0, abs(reached - u - 0.5) - slack)
    return total


@pytest.mark.parametrize("slack", [0.0, 0.25, 0.5])
def test_the_loss_is_the_distance_of_the_running_sum(slack):
    generator = torch.Generator().manual_seed(1)
    alpha = torch.rand(3, 8, generator=generator, dtype=torch.float64)
    spikes = torch.tensor([[0, 2, 7], [3, 3, -1], [-1, -1, -1]])
    expected = by_hand(alpha, spikes.tolist(), slack)
    loss = ctc_guide_loss(alpha.requires_grad_(), spikes, slack)
    assert loss.item() == pytest.approx(expected)
    assert expected > 0
    torch.autograd.gradcheck(lambda a: ctc_guide_loss(a, spikes, slack), alpha)
    loss.backward()
    assert not alpha.grad[2].any()


def test_descent_moves_the_firings_to_the_spikes():
    alpha = torch.full((1, 20), 0.2, dtype=torch.float64)
    spikes = torch.tensor([[1, 3, 5, 18]])
    logits = alpha.logit().requires_grad_()
    for _ in range(300):
        weights = logits.sigmoid()
        scaled = weights * 4 / weights.sum()
        loss = ctc_guide_loss(scaled, spikes)
        (grad,) = torch.autograd.grad(loss, logits)
        logits = (logits - grad).detach().requires_grad_()
    assert loss.item() < 1e-3


def spikes_by_hand(alpha, spikes):
    total = 0.0
    for weights, frames in zip(alpha.tolist(), spikes.tolist(), strict=True):
        frames = [frame for frame in frames if frame >= 0]
        for t, weight in enumerate(weights[: max(frames, default=-1) + 1]):
            total -= math.log(weight if t in frames else 1 - weight)
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spike_loss_by_hand(dtype):
    alpha = torch.rand(4, 7, generator=torch.Generator().manual_seed(0), dtype=dtype)
    spikes = torch.tensor([[0, 2, 6], [3, 4, -1], [-1, -1, -1], [0, -1, -1]])
    found = ctc_spike_loss(alpha, spikes)
    assert found.dtype is dtype
    assert float(found) == pytest.approx(spikes_by_hand(alpha, spikes), rel=1e-5)
    # Frames after the last spike, padding among them, and companions change nothing.
    alone = sum(ctc_spike_loss(alpha[n : n + 1], spikes[n : n + 1]) for n in range(4))
    torch.testing.assert_close(found, alone)
    changed = alpha.clone()
    changed[1, 5:], changed[2], changed[3, 1:] = 0.1, 0.9, 0.0
    assert torch.equal(ctc_spike_loss(changed, spikes), found)
    assert float(ctc_spike_loss(alpha, spikes[:, :0])) == 0


def test_spike_loss_and_gradient_stay_finite():
    """Weights of exactly 0 and 1, and a little more by rounding."""
    alpha = torch.tensor([[0.0, 1.0 + 1e-6, 1.0, 0.0]], requires_grad=True)
    loss = ctc_spike_loss(alpha, torch.tensor([[0, 1, 3]]))
    loss.backward()
    assert loss.isfinite() and alpha.grad.isfinite().all()
    perfect = torch.tensor([[0.0, 1.0, 0.3]])
    assert float(ctc_spike_loss(perfect, torch.tensor([[1]]))) == pytest.approx(0)


def test_spike_loss_gradient():
    alpha = torch.rand(2, 5, dtype=torch.float64).mul(0.8).add(0.1).requires_grad_()
    spikes = torch.tensor([[1, 4], [0, -1]])
    assert torch.autograd.gradcheck(lambda a: ctc_spike_loss(a, spikes), alpha)


def test_drift_by_hand():
    alpha = torch.tensor([[0.5, 0.5, 1.0, 0.0], [0.0, 2.0, 1.0, 0.0]])
    found = ctc_drift(alpha, torch.tensor([[1, 2], [0, -1]]))
    assert found.tolist() == [[0.25, 0.0], [-0.5, 0.0]]
