"""Firing in numpy gives the vectors, times and passages of firing in torch."""

import itertools

import numpy as np
import pytest
import torch
from tiny_stream import streaming_model

from espnet_cif_hkd.cif.streaming import fire_piece
from espnet_cif_hkd.inference.cif_stream import _TorchFiring
from espnet_cif_hkd.inference.numpy_firing import NumpyFiring, NumpyFrames
from espnet_cif_hkd.inference.passage_stream import PassageLimits, PassageStream

SIZE = 8


def weights(random, n_frames, largest):
    """Weights with silences, and some frames that fire several tokens."""
    alpha = random.uniform(0, largest, n_frames)
    alpha[random.uniform(size=n_frames) < 0.2] = 0.0
    for begin in random.integers(0, n_frames, 2):
        alpha[begin : begin + 12] = 0.0
    return alpha


@pytest.mark.parametrize("threshold", [0.5, 0.0, None])
@pytest.mark.parametrize("largest", [0.3, 1.0, 3.5])
def test_pieces_equal_those_in_torch(threshold, largest):
    random, count = np.random.default_rng(0), 0
    for n_frames in (0, 1, 2, 7, 60):
        hs = random.normal(size=(n_frames, SIZE)).astype(np.float32)
        alpha = weights(random, max(n_frames, 1), largest)[:n_frames]
        if n_frames == 7:
            alpha = np.full(7, 1 / 7)  # a sum just below 1
        cuts = np.sort(random.integers(0, n_frames + 1, 4)).tolist()
        firing, cache = NumpyFiring(SIZE, threshold), None
        borders = [0, *cuts, n_frames]
        for n, (a, b) in enumerate(itertools.pairwise(borders)):
            last = n == len(borders) - 2
            expected, cache = fire_piece(
                torch.from_numpy(hs[None, a:b]),
                torch.from_numpy(alpha[None, a:b]),
                torch.tensor([b - a]),
                cache,
                last,
                threshold,
            )
            found = firing.fire(hs[a:b], alpha[a:b], last)
            times = expected.firing_times[0].tolist()
            assert [time for _, time in found] == pytest.approx(times, abs=1e-9)
            vectors = firing.stack([vector for vector, _ in found])
            np.testing.assert_allclose(vectors, expected.embeddings[0], atol=2e-6)
            assert firing.total == float(cache.total)
            assert firing.n_frames == int(cache.n_frames)
            count += len(found)
    assert count >= 5


def test_nothing_fires_after_a_weight_that_is_not_finite():
    for bad in (np.nan, np.inf):
        firing, hs = NumpyFiring(SIZE, 0.5), np.ones((2, SIZE), np.float32)
        assert len(firing.fire(hs, np.full(2, 0.6), False)) == 1
        assert firing.fire(hs, np.array([bad, 1.0]), False) == []
        assert firing.fire(hs, np.full(2, 0.9), True) == []


@pytest.mark.parametrize("pause", [1, 4])
def test_passages_equal_those_in_torch(pause):
    decoder = streaming_model().decoder
    limits, ended = PassageLimits(pause, 3, 9), 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        hs = random.normal(size=(90, SIZE)).astype(np.float32)
        alpha = weights(random, 90, 1.0)
        both = [
            PassageStream(_TorchFiring(decoder), None, limits),
            PassageStream(NumpyFiring(SIZE, decoder.tail_threshold), None, limits),
        ]
        cuts = np.sort(random.integers(0, 91, 5)).tolist()
        for a, b in itertools.pairwise([0, *cuts, 90]):
            theirs = both[0].integrate(torch.from_numpy(hs[a:b]), alpha[a:b], b == 90)
            ours = both[1].integrate(hs[a:b], alpha[a:b], b == 90)
            for one, other in zip(ours, theirs, strict=True):
                assert (one.ends, one.is_inside) == (other.ends, other.is_inside)
                np.testing.assert_allclose(one.vectors, other.vectors, atol=2e-6)
                places = [[vars(each) for each in x.places] for x in (one, other)]
                for mine, yours in zip(*places, strict=True):
                    assert mine == pytest.approx(yours, abs=1e-9)
                ended += one.ends and not one.is_inside
    assert ended > 4


def test_frames_around_firings():
    attention = streaming_model(frame_window=2).decoder.frame_attention
    hidden = torch.randn(1, 30, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        normed = attention.norm_frames(hidden)[0]
        keys, values = attention.key(normed), attention.value(normed)
    frames = NumpyFrames(2, SIZE)
    frames.add(keys[:20].numpy(), values[:20].numpy())
    frames.forget(5)
    frames.forget(3)
    frames.add(keys[20:].numpy(), values[20:].numpy())
    assert (frames.first, frames.end) == (5, 30)
    ends = [7.0, 7.5, 8.0 + 1e-9, 12.25, 29.0, 30.0]
    found = frames.around(ends)
    with torch.no_grad():
        expected = attention.near(
            hidden[:, 5:], torch.tensor([25]), torch.tensor([ends]).double() - 5
        )
    for name, one in found.items():
        np.testing.assert_allclose(one, getattr(expected, name)[0], atol=1e-6)
