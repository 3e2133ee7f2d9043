"""``forward_chunk`` against the masked pass over complete utterances."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_conformer import FEATURES, padded, random_utterances, tiny_conformer, unpadded

from espnet_cif_hkd.encoder.front_end import INPUT_LAYERS
from espnet_cif_hkd.encoder.streaming import chunk_span
from espnet_cif_hkd.errors import UserError

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def stream(encoder, batch, lengths, cuts):
    """Encode a batch in pieces that end at ``cuts``; the frames of each utterance."""
    cache, frames = None, [[] for _ in lengths]
    edges = [0, *sorted(cuts), batch.size(1)]
    for n, (begin, end) in enumerate(itertools.pairwise(edges)):
        hs_pad, olens, cache = encoder.forward_chunk(
            batch[:, begin:end],
            cache,
            (lengths - begin).clamp(0, end - begin),
            last=n == len(cuts),
        )
        assert hs_pad.size(1) == 0 or olens.max() <= hs_pad.size(1)
        for row, hs, length in zip(frames, hs_pad, olens.tolist(), strict=True):
            row.append(hs[:length])
            assert not hs[length:].any()
    return [torch.cat(row) for row in frames]


def assert_streams(encoder, lengths, cuts, **tolerance):
    dtype = next(encoder.parameters()).dtype
    utterances = [
        features.to(dtype)
        for features in random_utterances(lengths, features=encoder_features(encoder))
    ]
    batch, lens = padded(utterances)
    with torch.no_grad():
        expected = unpadded(*encoder(batch, lens)[:2])
        found = stream(encoder, batch, lens, cuts)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def encoder_features(encoder):
    return {"conv2d8": 15, "conv2d6": 11, None: 8}.get(encoder.input_layer, FEATURES)


def streaming_conformer(input_layer="conv2d_stride2", **changes):
    features = {"conv2d8": 15, "conv2d6": 11, None: 8}.get(input_layer, FEATURES)
    return tiny_conformer(
        features=features, **({"input_layer": input_layer} | changes)
    ).eval()


@pytest.mark.slow
@given(data=st.data())
def test_every_split_gives_the_masked_pass(data):
    n_blocks = data.draw(st.integers(1, 3), label="blocks")
    encoder = streaming_conformer(
        input_layer=data.draw(st.sampled_from(INPUT_LAYERS), label="input_layer"),
        num_blocks=n_blocks,
        pooling_layers=data.draw(
            st.lists(st.integers(1, n_blocks), unique=True, max_size=2), label="pooling"
        ),
        cnn_module_kernel=data.draw(st.sampled_from([1, 3, 9]), label="kernel"),
        chunk_size=data.draw(st.integers(1, 5), label="chunk_size"),
        left_chunks=data.draw(st.sampled_from([-1, 0, 1, 3]), label="left_chunks"),
        causal_convolution=data.draw(st.booleans(), label="causal"),
        final_norm=data.draw(st.booleans(), label="final_norm"),
    )
    shortest = encoder._fewest_frames
    lengths = data.draw(
        st.lists(st.integers(shortest, shortest + 70), min_size=1, max_size=3),
        label="lengths",
    )
    cuts = data.draw(st.lists(st.integers(0, max(lengths)), max_size=9), label="cuts")
    assert_streams(encoder, lengths, cuts, **EXACT)


@pytest.mark.parametrize("causal", [False, True], ids=["inside", "causal"])
@pytest.mark.parametrize("pooling", [[], [1, 3]], ids=str)
def test_frame_by_frame_in_float32(pooling, causal):
    encoder = streaming_conformer(
        pooling_layers=pooling, chunk_size=4, left_chunks=2, causal_convolution=causal
    ).float()
    assert_streams(encoder, [150, 97], range(1, 150), rtol=1e-5, atol=1e-5)


def test_autocast_streams_to_the_precision_of_bfloat16():
    encoder = streaming_conformer(pooling_layers=[1], chunk_size=3).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert_streams(
            encoder, [80, 60], [13, 14, 50], rtol=0.1, atol=0.1, check_dtype=False
        )


@pytest.mark.parametrize("pooling", [[], [1, 3]], ids=str)
@pytest.mark.parametrize("input_layer", INPUT_LAYERS)
def test_a_chunk_comes_with_its_last_feature(input_layer, pooling):
    """Not a feature later than ``chunk_span`` says, and not earlier."""
    encoder = streaming_conformer(
        input_layer, pooling_layers=pooling, chunk_size=2, left_chunks=1
    )
    span, needed = chunk_span(encoder, 2)
    [features] = random_utterances([3 * needed], features=encoder_features(encoder))
    cache, arrivals = None, []
    for n, feature in enumerate(features, start=1):
        hs_pad, olens, cache = encoder.forward_chunk(feature[None, None], cache)
        assert hs_pad.size(1) == int(olens) in (0, 2)
        arrivals += [n] * (hs_pad.size(1) > 0)
    assert arrivals == list(range(needed, 3 * needed + 1, span))


def test_the_cache_is_not_changed():
    """The same cache continued twice: a guess at the end, then more audio."""
    encoder = streaming_conformer(pooling_layers=[1], chunk_size=2)
    batch, _ = padded(random_utterances([90]))
    first, _, cache = encoder.forward_chunk(batch[:, :50])
    guess, _, _ = encoder.forward_chunk(batch[:, 50:50], cache, last=True)
    rest, _, _ = encoder.forward_chunk(batch[:, 50:], cache, last=True)
    for n_features, pieces in ((50, [first, guess]), (90, [first, rest])):
        expected, _, _ = encoder(batch[:, :n_features], torch.tensor([n_features]))
        torch.testing.assert_close(torch.cat(pieces, dim=1), expected, **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("left_chunks", [0, 2])
def test_the_memory_of_a_stream_is_bounded(left_chunks):
    encoder = streaming_conformer(chunk_size=2, left_chunks=left_chunks)
    cache, sizes = None, []
    for features in random_utterances([40] * 12):
        _, _, cache = encoder.forward_chunk(features[None], cache)
        tensors = [cache.features, *[t for b in cache.blocks for t in vars(b).values()]]
        sizes.append(sum(tensor.numel() for tensor in tensors))
        for block, rate in zip(cache.blocks, (4, 2, 2, 1), strict=True):
            assert block.keys.size(2) <= left_chunks * 2 * rate
    assert max(sizes[6:]) <= max(sizes[:6])


def test_an_utterance_shorter_than_a_frame_gives_none():
    encoder = streaming_conformer(chunk_size=2)
    hs_pad, olens, _ = encoder.forward_chunk(torch.zeros(1, 4, FEATURES), last=True)
    assert hs_pad.shape == (1, 0, 8) and olens.tolist() == [0]


def test_padding_may_hold_anything():
    encoder = streaming_conformer(chunk_size=2)
    results = []
    for value in (0.0, float("nan")):
        batch, lengths = padded(random_utterances([60, 41]), extra=3, value=value)
        results.append(stream(encoder, batch, lengths, [20, 45]))
    for clean, poisoned in zip(*results, strict=True):
        assert torch.equal(clean, poisoned)


def test_full_context_cannot_stream():
    for changes in ({}, {"chunk_size": [0, 4]}, {"chunk_size": "dynamic"}):
        encoder = streaming_conformer(**changes)
        with pytest.raises(UserError, match="set encoder_conf: decoding_chunk_size"):
            encoder.forward_chunk(torch.zeros(1, 9, FEATURES))


def test_training_cannot_stream():
    with pytest.raises(UserError, match=r"call eval\(\)"):
        streaming_conformer(chunk_size=2).train().forward_chunk(
            torch.zeros(1, 9, FEATURES)
        )


def test_an_ended_utterance_cannot_go_on():
    encoder = streaming_conformer(chunk_size=2)
    zeros = torch.zeros(2, 30, FEATURES).double()
    _, _, cache = encoder.forward_chunk(zeros, ilens=torch.tensor([30, 20]))
    encoder.forward_chunk(zeros, cache, torch.tensor([30, 0]))
    with pytest.raises(UserError, match="goes on after its end"):
        encoder.forward_chunk(zeros, cache, torch.tensor([30, 1]))
