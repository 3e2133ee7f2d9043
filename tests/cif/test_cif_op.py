"""Integrate-and-fire against its oracle, its properties and its corner cases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_firing import check_against_the_loop

from espnet_cif_hkd.cif import integrate_and_fire


def weights_of(alpha, **kwargs):
    """Weight of every frame on every token, by integrating unit vectors."""
    alpha = torch.tensor([alpha], dtype=torch.float64)
    n_frames = alpha.size(1)
    hs = torch.eye(n_frames, dtype=torch.float64)[None]
    return integrate_and_fire(hs, alpha, torch.tensor([n_frames]), **kwargs)


# Scaled weights and the exact rows. The original code, CIF-PyTorch and FunASR merge or
# lose tokens in all of these cases but the last.
EXACT = {
    "A several fires in a row": (
        [0.4, 1.8, 1.2, 1.2, 1.4],
        [
            [0.4, 0.6, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [0, 0.2, 0.8, 0, 0],
            [0, 0, 0.4, 0.6, 0],
            [0, 0, 0, 0.6, 0.4],
            [0, 0, 0, 0, 1],
        ],
    ),
    "A2 alpha over two": (
        [0.3, 2.6, 0.05, 0.05, 0.5, 0.5],
        [
            [0.3, 0.7, 0, 0, 0, 0],
            [0, 1, 0, 0, 0, 0],
            [0, 0.9, 0.05, 0.05, 0, 0],
            [0, 0, 0, 0, 0.5, 0.5],
        ],
    ),
    "A3 three fires in one frame": (
        [0.5, 0.5, 3.0],
        [[0.5, 0.5, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]],
    ),
    "A4 just under the threshold": (
        [0.5, 0.495, 0.5, 0.505],
        [[0.5, 0.495, 0.005, 0], [0, 0, 0.495, 0.505]],
    ),
    "alpha over three inside": (
        [0.5, 4.25, 0.25],
        [[0.5, 0.5, 0]] + [[0, 1, 0]] * 3 + [[0, 0.75, 0.25]],
    ),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("mode", ["scaled", "free", "free with tail"])
def test_exact_cases(name, mode):
    alpha, rows = EXACT[name]
    kwargs = {
        "scaled": {"target_lengths": torch.tensor([len(rows)])},
        "free": {"tail_threshold": None},
        "free with tail": {"tail_threshold": 0.5},
    }[mode]
    out = weights_of(alpha, **kwargs)
    assert out.lengths.tolist() == [len(rows)]
    expected = torch.tensor([rows], dtype=torch.float64)
    torch.testing.assert_close(out.embeddings, expected, rtol=0, atol=1e-12)


def test_firing_times_are_fractions_of_frames():
    out = weights_of([0.5, 2.0, 0.25, 0.35], tail_threshold=0.05)
    assert out.lengths.tolist() == [4]
    # 0.5 + 2.0 passes 1 after a quarter of frame 1 and 2 after three quarters; the
    # rest, 0.5, is filled by 0.25 of frame 2 and 0.25 of 0.35 of frame 3; the tail
    # (0.1) ends with the utterance.
    expected = torch.tensor([[1.25, 1.75, 3 + 0.25 / 0.35, 4.0]]).double()
    torch.testing.assert_close(out.firing_times, expected, rtol=0, atol=1e-6)


@st.composite
def batches(draw, dtype=torch.float64):
    seed = draw(st.integers(0, 2**31))
    n_batch = draw(st.integers(1, 5))
    n_frames = draw(st.integers(1, 24))
    scale = draw(st.sampled_from([0.2, 0.6, 1.0, 4.0]))
    gen = torch.Generator().manual_seed(seed)
    hs = torch.randn(n_batch, n_frames, 3, generator=gen, dtype=torch.float64)
    alpha = torch.rand(n_batch, n_frames, generator=gen, dtype=torch.float64) * scale
    lengths = torch.randint(1, n_frames + 1, (n_batch,), generator=gen)
    targets = torch.randint(0, 2 * n_frames + 1, (n_batch,), generator=gen)
    return hs.to(dtype), alpha.to(dtype), lengths, targets


@pytest.mark.slow
@settings(max_examples=60)
@given(batches(), st.sampled_from(["scaled", "tail", "no tail"]))
def test_agrees_with_the_naive_loop_in_outputs_and_gradients(batch, mode):
    hs, alpha, lengths, targets = batch
    kwargs = {
        "scaled": {"target_lengths": targets},
        "tail": {"tail_threshold": 0.45},
        "no tail": {"tail_threshold": None},
    }[mode]
    check_against_the_loop(hs, alpha, lengths, **kwargs)


@pytest.mark.slow
@settings(max_examples=60)
@given(batches(torch.float32), st.booleans())
def test_padding_and_companions_change_nothing(batch, scaled):
    hs, alpha, lengths, targets = batch
    poisoned_hs = torch.full((hs.size(0), hs.size(1) + 7, 3), float("nan"))
    poisoned_alpha = torch.full(poisoned_hs.shape[:2], float("nan"))
    for b, n in enumerate(lengths):
        poisoned_hs[b, :n] = hs[b, :n]
        poisoned_alpha[b, :n] = alpha[b, :n]
    poisoned_hs.requires_grad_()
    poisoned_alpha.requires_grad_()
    together = integrate_and_fire(
        poisoned_hs, poisoned_alpha, lengths, targets if scaled else None
    )
    (together.embeddings.square().sum() + together.quantity.sum()).backward()
    for b, n in enumerate(lengths):
        h = hs[b : b + 1, :n].clone().requires_grad_()
        a = alpha[b : b + 1, :n].clone().requires_grad_()
        alone = integrate_and_fire(
            h, a, lengths[b : b + 1], targets[b : b + 1] if scaled else None
        )
        (alone.embeddings.square().sum() + alone.quantity.sum()).backward()
        n_tokens = int(alone.lengths)
        assert int(together.lengths[b]) == n_tokens
        # Identical, not close: the sums run over the same numbers in the same order.
        assert torch.equal(together.embeddings[b, :n_tokens], alone.embeddings[0])
        assert torch.equal(together.firing_times[b, :n_tokens], alone.firing_times[0])
        assert (together.embeddings[b, n_tokens:] == 0).all()
        torch.testing.assert_close(poisoned_hs.grad[b, :n], h.grad[0])
        torch.testing.assert_close(poisoned_alpha.grad[b, :n], a.grad[0])
        assert (poisoned_hs.grad[b, n:] == 0).all()
        assert (poisoned_alpha.grad[b, n:] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_training_fires_exactly_the_target(autocast):
    """20,000 utterances; every token holds one unit, the last one included."""
    gen = torch.Generator().manual_seed(1)
    for _ in range(400):
        n_batch = int(torch.randint(1, 100, (), generator=gen))
        n_frames = int(torch.randint(1, 60, (), generator=gen))
        lengths = torch.randint(1, n_frames + 1, (n_batch,), generator=gen)
        targets = torch.randint(1, n_frames + 3, (n_batch,), generator=gen)
        alpha = torch.rand(n_batch, n_frames, generator=gen)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            hs = torch.ones(n_batch, n_frames, 1)
            hs = torch.nn.functional.linear(hs, torch.ones(1, 1))
            assert hs.dtype == (torch.bfloat16 if autocast else torch.float32)
            out = integrate_and_fire(hs, alpha, lengths, targets)
        assert out.embeddings.size(1) == targets.max()
        assert torch.equal(out.lengths, targets)
        valid = torch.arange(targets.max())[None] < targets[:, None]
        # A vector of ones integrates to the mass of its token.
        mass = out.embeddings[..., 0].float()
        assert ((mass - 1).abs()[valid] < 1e-5).all()
        assert (mass[~valid] == 0).all()
        assert (out.firing_times[valid] > 0).all()


@pytest.mark.parametrize("mode", ["scaled", "tail", "no tail"])
def test_gradcheck(mode):
    gen = torch.Generator().manual_seed(3)
    hs = torch.randn(2, 6, 2, generator=gen, dtype=torch.float64, requires_grad=True)
    alpha = torch.rand(2, 6, generator=gen, dtype=torch.float64) + 0.1
    alpha[0, 2] = 2.3
    alpha.requires_grad_()
    kwargs = {
        "scaled": {"target_lengths": torch.tensor([4, 3])},
        "tail": {"tail_threshold": 0.01},
        "no tail": {"tail_threshold": None},
    }[mode]

    def fire(h, a):
        out = integrate_and_fire(h, a, torch.tensor([6, 4]), **kwargs)
        return out.embeddings, out.quantity

    assert torch.autograd.gradcheck(fire, (hs, alpha))


def test_the_embeddings_do_not_feel_the_scale_of_alpha_in_training():
    """Only the quantity loss moves the sum ."""
    alpha = torch.rand(2, 9, dtype=torch.float64, requires_grad=True)
    hs = torch.randn(2, 9, 4, dtype=torch.float64)
    out = integrate_and_fire(hs, alpha, torch.tensor([9, 7]), torch.tensor([3, 2]))
    out.embeddings.pow(3).sum().backward()
    torch.testing.assert_close(
        (alpha * alpha.grad).sum(1), torch.zeros(2, dtype=torch.float64)
    )


def test_nothing_fires():
    hs = torch.randn(2, 3, 4, requires_grad=True)
    alpha = torch.full((2, 3), 0.1, requires_grad=True)
    out = integrate_and_fire(hs, alpha, torch.tensor([3, 2]))
    assert out.embeddings.shape == (2, 0, 4)
    assert out.lengths.tolist() == [0, 0]
    torch.testing.assert_close(out.quantity, torch.tensor([0.3, 0.2]))
    (out.embeddings.sum() + out.quantity.sum()).backward()
    assert (alpha.grad == torch.tensor([[1.0, 1, 1], [1, 1, 0]])).all()


def test_all_zero_alpha_stays_finite_in_training():
    hs = torch.randn(1, 3, 4, requires_grad=True)
    alpha = torch.zeros(1, 3, requires_grad=True)
    out = integrate_and_fire(hs, alpha, torch.tensor([3]), torch.tensor([2]))
    assert out.lengths.tolist() == [2]
    assert (out.embeddings == 0).all()
    out.embeddings.sum().backward()
    assert torch.isfinite(alpha.grad).all() and torch.isfinite(hs.grad).all()


def test_utterance_without_frames():
    hs = torch.full((2, 3, 1), float("nan"))
    hs[1] = 1.0
    alpha = torch.ones(2, 3)
    out = integrate_and_fire(hs, alpha, torch.tensor([0, 3]), torch.tensor([2, 3]))
    assert out.embeddings[:, :, 0].tolist() == [[0, 0, 0], [1, 1, 1]]
    free = integrate_and_fire(hs, alpha, torch.tensor([0, 3]))
    assert free.lengths.tolist() == [0, 3]


def test_one_frame():
    out = weights_of([0.7])
    assert out.embeddings.flatten().tolist() == pytest.approx([1.0], abs=1e-9)
    assert out.firing_times.tolist() == [[1.0]]
    assert weights_of([0.3]).lengths.tolist() == [0]
    assert weights_of([0.3], target_lengths=torch.tensor([5])).embeddings.shape[1] == 5


def test_long_input_in_float32_is_exact():
    n_frames, n_tokens = 20_000, 3_000
    gen = torch.Generator().manual_seed(0)
    hs = torch.randn(1, n_frames, 8, generator=gen)
    alpha = torch.rand(1, n_frames, generator=gen) * 0.3
    lengths, target = torch.tensor([n_frames]), torch.tensor([n_tokens])
    out = integrate_and_fire(hs, alpha, lengths, target)
    exact = integrate_and_fire(hs.double(), alpha.double(), lengths, target)
    assert out.lengths.tolist() == [n_tokens]
    torch.testing.assert_close(
        out.embeddings.double(), exact.embeddings, atol=1e-5, rtol=1e-5
    )


def test_rounding_does_not_lose_the_last_token_without_a_tail():
    """Float32 weights that are meant to sum to ten and come out a hair below."""
    alpha = torch.full((1, 30), 1 / 3)
    alpha[0, 0] -= 6e-7
    assert alpha.double().sum() < 10
    out = integrate_and_fire(
        torch.ones(1, 30, 1), alpha, torch.tensor([30]), None, None
    )
    assert out.lengths.tolist() == [10]


def test_known_length_needs_no_read_back_and_only_pads():
    hs, alpha = torch.randn(2, 8, 3), torch.rand(2, 8)
    lengths, targets = torch.tensor([8, 5]), torch.tensor([4, 2])
    short = integrate_and_fire(hs, alpha, lengths, targets)
    long = integrate_and_fire(hs, alpha, lengths, targets, max_target_length=6)
    assert long.embeddings.shape == (2, 6, 3)
    assert torch.equal(long.embeddings[:, :4], short.embeddings)
    assert (long.embeddings[:, 4:] == 0).all()
    assert (long.firing_times[:, 4:] == -1).all()


@pytest.mark.parametrize(
    "shapes, message",
    [
        (((2, 5), (2, 5), (2,)), "hs \\(B, T, D\\)"),
        (((2, 5, 3), (2, 4), (2,)), "alpha \\(B, T\\)"),
        (((2, 5, 3), (2, 5), (3,)), "lengths must be"),
    ],
)
def test_wrong_shapes_are_named(shapes, message):
    hs, alpha, lengths = (torch.ones(s) for s in shapes)
    with pytest.raises(ValueError, match=message):
        integrate_and_fire(hs, alpha, lengths.long())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_wide_vectors_in_every_dtype(dtype):
    """Widths at which the sums use vector units, against the complete matrix."""
    gen = torch.Generator().manual_seed(5)
    hs = torch.randn(3, 57, 264, generator=gen).to(dtype)
    alpha = torch.rand(3, 57, generator=gen).double()
    lengths, targets = torch.tensor([57, 31, 40]), torch.tensor([17, 9, 60])
    weight = torch.randn(3, 60, 264, generator=gen).double()
    inside = torch.arange(57)[None] < lengths[:, None]

    exact_hs, exact_alpha = hs.double().requires_grad_(), alpha.clone().requires_grad_()
    scaled = exact_alpha * inside
    cum = (scaled * (targets / scaled.sum(1))[:, None]).cumsum(1)
    before = torch.nn.functional.pad(cum[:, :-1], (1, 0))
    token = torch.arange(60)[None, :, None].double()
    upper = torch.minimum(cum[:, None], token + 1)
    overlaps = (upper - torch.maximum(before[:, None], token)).clamp(min=0)
    expected = overlaps * (token < targets[:, None, None]) @ exact_hs
    (expected * weight).sum().backward()

    hs.requires_grad_()
    ours = alpha.clone().requires_grad_()
    out = integrate_and_fire(hs, ours, lengths, targets)
    assert out.embeddings.dtype == dtype
    (out.embeddings * weight).sum().backward()
    bound = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    for found, wanted in (
        (out.embeddings, expected),
        (hs.grad, exact_hs.grad),
        (ours.grad, exact_alpha.grad),
    ):
        scale = wanted.abs().max()
        assert (found.double() - wanted).abs().max() < bound * scale


def test_gradient_of_padded_tokens_is_not_looked_at():
    hs = torch.randn(2, 8, 4, requires_grad=True)
    alpha = torch.rand(2, 8, requires_grad=True)
    lengths, targets = torch.tensor([8, 6]), torch.tensor([4, 2])
    out = integrate_and_fire(hs, alpha, lengths, targets)
    grad = torch.ones_like(out.embeddings)
    grad[1, 2:] = float("nan")
    out.embeddings.backward(grad)
    assert torch.isfinite(hs.grad).all() and torch.isfinite(alpha.grad).all()


@pytest.mark.parametrize("frozen", ["hs", "alpha"])
def test_one_input_may_be_frozen(frozen):
    hs = torch.randn(2, 8, 4, requires_grad=frozen != "hs")
    alpha = torch.rand(2, 8, requires_grad=frozen != "alpha")
    lengths, targets = torch.tensor([8, 6]), torch.tensor([4, 2])
    integrate_and_fire(hs, alpha, lengths, targets).embeddings.pow(2).sum().backward()
    found = alpha.grad if frozen == "hs" else hs.grad
    assert found.abs().sum() > 0


def test_a_frame_that_is_not_a_number_stays_in_its_utterance():
    hs = torch.ones(2, 6, 4)
    hs[0, 1] = float("nan")
    out = integrate_and_fire(
        hs, torch.full((2, 6), 0.4), torch.tensor([6, 3]), torch.tensor([4, 2])
    )
    assert out.embeddings[0].isnan().any()
    assert torch.isfinite(out.embeddings[1]).all()
    assert (out.embeddings[1, 2:] == 0).all()
