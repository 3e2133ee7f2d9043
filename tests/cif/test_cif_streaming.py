"""Weights and firing in pieces against the same over complete utterances."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_cif_hkd.cif import CIFPredictor, integrate_and_fire
from espnet_cif_hkd.cif.naive import integrate_and_fire_naive
from espnet_cif_hkd.cif.streaming import fire_piece

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def pieces(cuts, n_frames):
    """Begin, end and whether it is the last, of each piece."""
    edges = [0, *sorted(cuts), n_frames]
    for n, (begin, end) in enumerate(itertools.pairwise(edges)):
        yield begin, end, n == len(cuts)


def fire_in_pieces(hs, alpha, lengths, cuts, **options):
    """Fired vectors and times of each utterance."""
    cache = None
    rows = [([], []) for _ in lengths]
    for begin, end, last in pieces(cuts, hs.size(1)):
        fired, cache = fire_piece(
            hs[:, begin:end],
            alpha[:, begin:end],
            (lengths - begin).clamp(0, end - begin),
            cache,
            last,
            **options,
        )
        for b, n in enumerate(fired.lengths.tolist()):
            rows[b][0].append(fired.embeddings[b, :n])
            rows[b][1].extend(fired.firing_times[b, :n].tolist())
            assert not fired.embeddings[b, n:].any()
            assert (fired.firing_times[b, n:] == -1).all()
    return [(torch.cat(vectors), times) for vectors, times in rows]


@st.composite
def streams(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n_batch, n_frames = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    shape = (n_batch, n_frames)
    if draw(st.booleans()):  # sums that are integers, exactly
        alpha = torch.randint(0, 9, shape, generator=generator).double() / 4
    else:
        scale = draw(st.sampled_from([0.2, 0.6, 1.0, 4.0]))
        alpha = torch.rand(shape, generator=generator, dtype=torch.float64) * scale
    hs = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, n_frames + 1, (n_batch,), generator=generator)
    cuts = draw(st.lists(st.integers(0, n_frames), max_size=6))
    return hs, alpha, lengths, cuts


@pytest.mark.slow
@settings(max_examples=60)
@given(streams(), st.sampled_from([None, 0.0, 0.3, 0.5]))
def test_pieces_equal_the_loop_over_complete_utterances(batch, threshold):
    hs, alpha, lengths, cuts = batch
    results = []
    for by_piece in (True, False):
        h, a = hs.clone().requires_grad_(), alpha.clone().requires_grad_()
        if by_piece:
            rows = fire_in_pieces(h, a, lengths, cuts, tail_threshold=threshold)
        else:
            rows = list(
                zip(
                    *integrate_and_fire_naive(h, a, lengths, tail_threshold=threshold),
                    strict=True,
                )
            )
        loss = sum(
            ((k + 1) * row * (row + b + 1)).sum()
            for b, (vectors, _) in enumerate(rows)
            for k, row in enumerate(vectors)
        )
        gradients = (
            torch.autograd.grad(loss, [h, a], materialize_grads=True)
            if isinstance(loss, torch.Tensor)
            else [torch.zeros_like(h), torch.zeros_like(a)]
        )
        results.append((rows, gradients))
    (found, found_grads), (expected, expected_grads) = results
    for (vectors, times), (wanted, at) in zip(found, expected, strict=True):
        torch.testing.assert_close(vectors, wanted, **EXACT)
        assert times == pytest.approx(at, abs=1e-9)
    for one, other in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_stream_neither_loses_nor_adds_a_token(dtype):
    """As many tokens as the complete pass, at 13 frames a piece."""
    generator = torch.Generator().manual_seed(0)
    hs = torch.randn(2, 3000, 4, generator=generator).to(dtype)
    alpha = torch.rand(2, 3000, generator=generator) * 0.3
    lengths = torch.tensor([3000, 2511])
    expected = integrate_and_fire(hs, alpha, lengths)
    found = fire_in_pieces(hs, alpha, lengths, range(13, 3000, 13))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for b, (vectors, times) in enumerate(found):
        n_tokens = int(expected.lengths[b])
        assert len(vectors) == n_tokens > 350
        torch.testing.assert_close(
            vectors, expected.embeddings[b, :n_tokens], rtol=tolerance, atol=tolerance
        )
        assert times == pytest.approx(expected.firing_times[b, :n_tokens].tolist())


def test_a_sum_just_below_an_integer_fires_at_the_end_only():
    """In the middle the token waits for more weight; rounding is for the end."""
    hs = torch.ones(1, 2, 1).double()
    alpha = torch.tensor([[0.5, 0.5 - 1e-7]]).double()
    lengths = torch.tensor([2])
    fired, cache = fire_piece(hs, alpha, lengths)
    assert fired.lengths.tolist() == [0]
    ended, _ = fire_piece(hs[:, :0], alpha[:, :0], lengths * 0, cache, last=True)
    assert ended.lengths.tolist() == [1]
    [[(vectors, times)]] = [fire_in_pieces(hs, alpha, lengths, [1])]
    whole = integrate_and_fire(hs, alpha, lengths)
    torch.testing.assert_close(vectors, whole.embeddings[0], **EXACT)
    assert times == whole.firing_times[0].tolist() == [2.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_fires_after_a_bad_weight(bad):
    hs, alpha = torch.ones(2, 6, 1), torch.full((2, 6), 0.75)
    alpha[0, 4] = bad
    lengths = torch.tensor([6, 6])
    rows = fire_in_pieces(hs, alpha, lengths, [3])
    assert [len(vectors) for vectors, _ in rows] == [2, 4]
    complete = integrate_and_fire(hs, alpha, lengths)
    assert complete.lengths.tolist() == [0, 4]  # its sum is known before it fires


@pytest.mark.slow
@given(data=st.data())
def test_the_predictor_in_pieces(data):
    width = data.draw(st.sampled_from([1, 3, 5]))
    torch.manual_seed(0)
    predictor = CIFPredictor(4, conv_width=width, causal=data.draw(st.booleans()))
    predictor = predictor.double().eval()
    n_frames = data.draw(st.integers(1, 12))
    lengths = torch.tensor(
        data.draw(st.lists(st.integers(1, n_frames), min_size=1, max_size=3))
    )
    hs = torch.randn(len(lengths), n_frames, 4, dtype=torch.float64)
    expected = predictor(hs, lengths)
    valid = torch.arange(n_frames) < lengths[:, None]
    cache, rows = None, [[] for _ in lengths]
    cuts = data.draw(st.lists(st.integers(0, n_frames), max_size=5))
    for begin, end, last in pieces(cuts, n_frames):
        piece_lengths = (lengths - begin).clamp(0, end - begin)
        ready, alpha, n_valid, cache = predictor.forward_chunk(
            hs[:, begin:end], piece_lengths, cache, last
        )
        for b, n in enumerate(n_valid.tolist()):
            rows[b].append((ready[b, :n], alpha[b, :n]))
            assert not alpha[b, n:].any()
    for b, row in enumerate(rows):
        frames, weights = (torch.cat(parts) for parts in zip(*row, strict=True))
        assert torch.equal(frames, hs[b, : lengths[b]])
        torch.testing.assert_close(weights, expected[b, : lengths[b]], **EXACT)
        assert not expected[b][~valid[b]].any()


@pytest.mark.parametrize(("causal", "reach"), [(False, 1), (True, 0)])
def test_how_far_the_predictor_looks_ahead(causal, reach):
    predictor = CIFPredictor(4, causal=causal).double().eval()
    hs = torch.randn(1, 9, 4, dtype=torch.float64, requires_grad=True)
    alpha = predictor(hs, torch.tensor([9]))
    (gradient,) = torch.autograd.grad(alpha[0, 4], hs)
    seen = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    assert seen == list(range(4 + reach - 2, 4 + reach + 1))


def test_the_names_of_the_predictors_parameters_do_not_change():
    plain, causal = CIFPredictor(4), CIFPredictor(4, causal=True)
    assert list(plain.state_dict()) == list(causal.state_dict())


def test_an_option_that_is_no_flag():
    with pytest.raises(ValueError, match="causal must be true or false, got 'yes'"):
        CIFPredictor(4, causal="yes")
