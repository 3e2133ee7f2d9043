"""Alpha scaled between known ends of tokens, against the naive loop and by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_firing import check_against_the_loop

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.segments import dense_segment_weights, segment_weights


@st.composite
def batches(draw, dtype=torch.float64):
    """Frames, weights, lengths, numbers of tokens and their ends.

    Some utterances have ends that cannot be used: none for a token, one twice, one
    negative, or one at the last frame.
    """
    seed = draw(st.integers(0, 2**31))
    n_batch = draw(st.integers(1, 5))
    n_frames = draw(st.integers(1, 24))
    gen = torch.Generator().manual_seed(seed)
    hs = torch.randn(n_batch, n_frames, 3, generator=gen, dtype=torch.float64)
    alpha = torch.rand(n_batch, n_frames, generator=gen, dtype=torch.float64)
    lengths = torch.randint(1, n_frames + 1, (n_batch,), generator=gen)
    rows = []
    for length in lengths.tolist():
        n_known = draw(st.integers(0, length - 1))
        ends = torch.randperm(length - 1, generator=gen)[:n_known].sort().values
        ends = ends.tolist()
        if ends and draw(st.booleans()):
            place = draw(st.integers(0, n_known - 1))
            ends[place] = draw(st.sampled_from([-1, ends[0], length - 1, length]))
        rows.append(ends)
    padded = torch.full((n_batch, max(map(len, rows))), draw(st.sampled_from([-1, 7])))
    for b, ends in enumerate(rows):
        padded[b, : len(ends)] = torch.tensor(ends, dtype=torch.long)
    tokens = torch.tensor([len(ends) + 1 for ends in rows])
    return hs.to(dtype), alpha.to(dtype), lengths, tokens, padded


@settings(max_examples=200)
@given(batches())
def test_agrees_with_the_naive_loop_in_outputs_and_gradients(batch):
    hs, alpha, lengths, tokens, ends = batch
    check_against_the_loop(hs, alpha, lengths, target_lengths=tokens, segment_ends=ends)


@settings(max_examples=60)
@given(batches(torch.float32))
def test_padding_and_companions_change_nothing(batch):
    hs, alpha, lengths, tokens, ends = batch
    n_batch, n_frames = alpha.shape
    poisoned_hs = torch.full((n_batch, n_frames + 7, 3), float("nan"))
    poisoned_alpha = torch.full((n_batch, n_frames + 7), float("nan"))
    for b, n in enumerate(lengths):
        poisoned_hs[b, :n], poisoned_alpha[b, :n] = hs[b, :n], alpha[b, :n]
    poisoned_hs.requires_grad_()
    poisoned_alpha.requires_grad_()
    together = integrate_and_fire(
        poisoned_hs, poisoned_alpha, lengths, tokens, segment_ends=ends
    )
    together.embeddings.square().sum().backward()
    for b, n in enumerate(lengths):
        h = hs[b : b + 1, :n].clone().requires_grad_()
        a = alpha[b : b + 1, :n].clone().requires_grad_()
        one = slice(b, b + 1)
        alone = integrate_and_fire(
            h, a, lengths[one], tokens[one], segment_ends=ends[one, : tokens[b] - 1]
        )
        alone.embeddings.square().sum().backward()
        assert torch.equal(together.embeddings[b, : tokens[b]], alone.embeddings[0])
        assert torch.equal(together.firing_times[b, : tokens[b]], alone.firing_times[0])
        torch.testing.assert_close(poisoned_hs.grad[b, :n], h.grad[0])
        torch.testing.assert_close(poisoned_alpha.grad[b, :n], a.grad[0])
        assert (poisoned_hs.grad[b, n:] == 0).all()
        assert (poisoned_alpha.grad[b, n:] == 0).all()


def fire(alpha, ends, n_tokens, dtype=torch.float64):
    alpha = torch.tensor([alpha], dtype=dtype)
    hs = torch.eye(alpha.size(1), dtype=dtype)[None]
    return integrate_and_fire(
        hs,
        alpha,
        torch.tensor([alpha.size(1)]),
        torch.tensor([n_tokens]),
        segment_ends=torch.tensor([ends], dtype=torch.long).reshape(1, -1),
    )


def test_each_token_is_made_of_its_own_frames():
    out = fire([0.1, 0.3, 0.9, 0.9, 0.0, 0.0], [1, 3], 3)
    expected = torch.zeros(3, 6, dtype=torch.float64)
    expected[0, :2] = torch.tensor([0.101, 0.301], dtype=torch.float64) / 0.402
    expected[1, 2:4] = 0.5
    expected[2, 4:] = 0.5  # nothing but the share that every frame has
    torch.testing.assert_close(out.embeddings[0], expected)
    assert out.firing_times.tolist() == [[2.0, 4.0, 6.0]]
    # What the quantity loss and the loss of the spikes see is not scaled.
    assert float(out.quantity) == pytest.approx(2.2)
    assert out.unscaled.tolist() == [[0.1, 0.3, 0.9, 0.9, 0.0, 0.0]]


@pytest.mark.parametrize(
    "ends",
    [[1, 1], [3, 1], [-1, 2], [4, 5], [1, 9]],
    ids=["one frame twice", "falling", "none", "none left", "after the last frame"],
)
def test_an_utterance_that_cannot_be_cut_is_scaled_as_before(ends):
    alpha = [0.1, 0.3, 0.9, 0.9, 0.2, 0.2]
    out = fire(alpha, ends, 3)
    plain = integrate_and_fire(
        torch.eye(6, dtype=torch.float64)[None],
        torch.tensor([alpha], dtype=torch.float64),
        torch.tensor([6]),
        torch.tensor([3]),
    )
    assert torch.equal(out.embeddings, plain.embeddings)
    assert torch.equal(out.alpha, plain.alpha)


def test_a_token_that_ends_with_the_utterance_leaves_a_frame_for_the_last():
    late, early = (fire([0.2] * 6, ends, 3) for ends in ([1, 5], [1, 4]))
    assert torch.equal(late.embeddings, early.embeddings)
    assert late.firing_times.tolist() == [[2.0, 5.0, 6.0]]


@settings(max_examples=200)
@given(batches())
def test_weights_fire_without_a_target_what_segments_fire_with_one(batch):
    """Also with operations of exported graphs, as far as ends can be given to them."""
    hs, alpha, lengths, tokens, ends = batch
    for b, n in enumerate(lengths.tolist()):
        alpha[b, n:] = float("nan")
    weights = segment_weights(alpha, lengths, ends, tokens)
    expected = integrate_and_fire(hs, alpha, lengths, tokens, segment_ends=ends)
    found = integrate_and_fire(hs, weights, lengths, max_target_length=30)
    for b, n in enumerate(lengths.tolist()):
        rows = ends[b, : int(tokens[b]) - 1].tolist()
        if torch.equal(weights[b, :n], alpha[b, :n]):
            continue  # not used: alpha fires as many tokens as it holds
        assert int(found.lengths[b]) == int(tokens[b])
        torch.testing.assert_close(
            found.embeddings[b, : tokens[b]], expected.embeddings[b, : tokens[b]]
        )
        assert (weights[b, n:] == 0).all()
        is_end = torch.zeros(1, alpha.size(1), dtype=torch.bool)
        is_end[0, rows] = True
        dense = dense_segment_weights(alpha[b : b + 1], lengths[b : b + 1], is_end)
        torch.testing.assert_close(dense[0], weights[b])


@pytest.mark.parametrize("ends", [[4, 5], [0, 1, 2, 3, 4, 5]])
def test_dense_weights_that_leave_no_frame_are_alpha(ends):
    alpha = torch.tensor([[0.1, 0.3, 0.9, 0.9, 0.2, 0.2, 0.5]])
    is_end = torch.zeros(1, 7, dtype=torch.bool)
    is_end[0, ends] = True
    lengths, tokens = torch.tensor([6]), torch.tensor([len(ends) + 1])
    dense = dense_segment_weights(alpha, lengths, is_end)
    plain = segment_weights(alpha, lengths, torch.tensor([ends]), tokens)
    assert torch.equal(dense, plain)
    assert torch.equal(plain[0, :6], alpha[0, :6].double()) and plain[0, 6] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_many_tokens_hold_one_unit_each(dtype):
    gen = torch.Generator().manual_seed(0)
    ends = torch.randperm(4_999, generator=gen)[:1_500].sort().values[None]
    alpha = torch.rand(1, 5_000, generator=gen).to(dtype)
    out = integrate_and_fire(
        torch.ones(1, 5_000, 1, dtype=dtype),
        alpha,
        torch.tensor([5_000]),
        torch.tensor([1_501]),
        segment_ends=ends,
    )
    assert out.embeddings.dtype is dtype
    ones = torch.ones_like(out.embeddings)
    torch.testing.assert_close(out.embeddings, ones, atol=1e-5, rtol=1e-2)
    assert torch.equal(out.firing_times[0, :-1], ends[0] + 1.0)
    assert out.alpha.dtype is torch.float64


def test_gradcheck():
    gen = torch.Generator().manual_seed(3)
    hs = torch.randn(2, 6, 2, generator=gen, dtype=torch.float64, requires_grad=True)
    alpha = torch.rand(2, 6, generator=gen, dtype=torch.float64).requires_grad_()
    # A segment of one frame has no gradient, and the second utterance is cut nowhere.
    ends = torch.tensor([[1, 2], [-1, 2]])

    def embeddings(h, a):
        lengths, tokens = torch.tensor([6, 4]), torch.tensor([3, 2])
        out = integrate_and_fire(h, a, lengths, tokens, segment_ends=ends)
        return out.embeddings, out.alpha

    assert torch.autograd.gradcheck(embeddings, (hs, alpha))


def test_alpha_of_zeros_and_utterances_without_frames_stay_finite():
    hs = torch.randn(3, 4, 2, requires_grad=True)
    alpha = torch.zeros(3, 4, requires_grad=True)
    out = integrate_and_fire(
        hs,
        alpha,
        torch.tensor([4, 0, 4]),
        torch.tensor([2, 1, 0]),
        segment_ends=torch.tensor([[1], [-1], [-1]]),
    )
    torch.testing.assert_close(out.embeddings[0, 0], hs[0, :2].mean(0))
    assert (out.embeddings[1:] == 0).all()
    out.embeddings.square().sum().backward()
    assert torch.isfinite(alpha.grad).all() and torch.isfinite(hs.grad).all()
    none = integrate_and_fire(
        torch.zeros(1, 0, 2),
        torch.zeros(1, 0),
        torch.tensor([0]),
        torch.tensor([1]),
        segment_ends=torch.zeros(1, 0, dtype=torch.long),
    )
    assert none.embeddings.shape == (1, 1, 2)


def test_wrong_arguments_are_named():
    hs, alpha, lengths = torch.ones(2, 5, 3), torch.ones(2, 5), torch.tensor([5, 4])
    ends = torch.tensor([[1], [2]])
    with pytest.raises(ValueError, match="segment_ends needs target_lengths"):
        integrate_and_fire(hs, alpha, lengths, segment_ends=ends)
    with pytest.raises(ValueError, match=r"segment_ends must be \(2, U\)"):
        integrate_and_fire(hs, alpha, lengths, lengths, segment_ends=ends[:1])
