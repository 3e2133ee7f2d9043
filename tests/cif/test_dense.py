"""The dense form fires what the loop and the operation fire."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.dense import fire_densely
from espnet_cif_hkd.cif.naive import integrate_and_fire_naive


@st.composite
def batches(draw):
    """Frames, alphas up to several tokens a frame, and lengths, in float64."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=3))
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(*lengths, 1))
    scale = draw(st.sampled_from([0.05, 0.5, 1.0, 3.0]))
    alpha = torch.rand(shape, generator=generator, dtype=torch.float64) * scale
    if draw(st.booleans()):  # sums that are integers
        alpha = (alpha * 4).round() / 4
    hs = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return hs, alpha, torch.tensor(lengths)


@settings(max_examples=30)
@given(batches(), st.sampled_from([None, 0.0, 0.3, 0.5]))
def test_agrees_with_the_naive_loop(batch, threshold):
    hs, alpha, lengths = batch
    vectors, times = integrate_and_fire_naive(
        hs, alpha, lengths, tail_threshold=threshold
    )
    pad = torch.arange(hs.size(1)) >= lengths[:, None]
    hs, alpha = hs.masked_fill(pad[..., None], torch.nan), alpha.masked_fill(pad, 9.0)
    fired = fire_densely(hs, alpha, lengths, threshold)
    assert fired.lengths.tolist() == [len(rows) for rows in vectors]
    for b, (rows, at) in enumerate(zip(vectors, times, strict=True)):
        found = fired.embeddings[b]
        torch.testing.assert_close(found[: len(rows)], rows, rtol=1e-9, atol=1e-9)
        assert found[len(rows) :].abs().sum() == 0
        np.testing.assert_allclose(fired.times[b, : len(at)], at, atol=1e-6)
        assert (fired.times[b, len(at) :] == -1).all()


@pytest.mark.slow
def test_20000_frames_in_float32_equal_the_operation():
    generator = torch.Generator().manual_seed(1)
    hs = torch.randn(1, 20_000, 2, generator=generator)
    alpha = torch.rand(1, 20_000, generator=generator) * 0.1
    lengths = torch.tensor([19_990])
    dense, sparse = (f(hs, alpha, lengths) for f in (fire_densely, integrate_and_fire))
    assert torch.equal(dense.lengths, sparse.lengths) and dense.lengths.min() > 500
    torch.testing.assert_close(dense.embeddings, sparse.embeddings, rtol=0, atol=1e-6)
    torch.testing.assert_close(dense.times, sparse.firing_times, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.01, torch.nan, torch.inf])
def test_nothing_fires(value):
    alpha = torch.tensor([[value, 0.1], [0.6, 0.6]])
    dense = fire_densely(torch.ones(2, 2, 3), alpha, torch.tensor([2, 2]))
    assert dense.lengths.tolist() == [0, 1] and dense.embeddings.shape == (2, 1, 3)
    assert dense.embeddings[0].abs().sum() == 0 and dense.times[0].tolist() == [-1]
    assert torch.equal(dense.embeddings[1], torch.ones(1, 3))


def test_a_sum_just_below_an_integer_fires():
    alpha = torch.full((1, 10), 0.1)  # float32: the sum is not exactly one
    for total in (alpha, alpha * (1 - 5e-8)):
        dense = fire_densely(torch.ones(1, 10, 1), total, torch.tensor([10]), None)
        assert dense.lengths.tolist() == [1]


def test_sixteen_bits_keep_their_dtype():
    hs = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    alpha = torch.full((1, 9), 0.4)
    both = [
        f(hs.bfloat16(), alpha, torch.tensor([9])).embeddings
        for f in (fire_densely, integrate_and_fire)
    ]
    assert both[0].dtype == torch.bfloat16
    torch.testing.assert_close(*both)
