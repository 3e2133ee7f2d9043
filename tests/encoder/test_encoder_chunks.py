"""Chunk masks of ``cif_conformer``: what a frame sees, and the draw in training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_conformer import (
    gradients,
    padded,
    random_utterances,
    tiny_conformer,
    unpadded,
    weighed_sum,
)
from tiny_model import CIF_CONFORMER, tiny_model

from espnet_cif_hkd.encoder.frames import fewest_frames
from espnet_cif_hkd.encoder.geometry import algorithmic_latency, known_frame_times
from espnet_cif_hkd.encoder.streaming import chunk_span
from espnet_cif_hkd.errors import UserError

LENGTHS = (56, 71, 55, 48)
RATE = 8000


def touched(encoder, n_features, frame):
    """First and last feature with an effect on an output frame."""
    places = []
    for seed in range(3):  # max pooling sees one of its frames at a time
        batch, lengths = padded(random_utterances([n_features], seed))
        batch.requires_grad_()
        hs_pad, _, _ = encoder(batch, lengths)
        (gradient,) = torch.autograd.grad(hs_pad[0, frame].square().sum(), batch)
        places += gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    return min(places), max(places)


@pytest.mark.parametrize("left_chunks", [-1, 0, 1])
@pytest.mark.parametrize("causal", [False, True], ids=["inside", "causal"])
@pytest.mark.parametrize("pooling", [[], [1]], ids=str)
def test_a_frame_sees_its_chunk_and_no_later_one(pooling, causal, left_chunks):
    encoder = tiny_conformer(
        num_blocks=1,
        pooling_layers=pooling,
        chunk_size=4,
        left_chunks=left_chunks,
        causal_convolution=causal,
        cnn_module_kernel=3,
    ).eval()
    span, needed = chunk_span(encoder, 4)
    # The convolution after the attention sees frames of chunk 1, from frame 8 only.
    for frame, oldest in ((8, 1), (11, 2)):
        first, last = touched(encoder, 6 * span, frame)
        assert last == 2 * span + needed - 1
        oldest = 0 if left_chunks == -1 else oldest - left_chunks
        assert first == oldest * span


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("pooling", [[], [1, 3]], ids=str)
def test_one_chunk_for_all_is_full_context(pooling, training):
    results = []
    for size in (0, 100):
        encoder = tiny_conformer(pooling_layers=pooling, chunk_size=size)
        batch, lengths = padded(random_utterances(LENGTHS))
        batch.requires_grad_()
        hs_pad, olens, _ = encoder.train(training)(batch, lengths)
        found = gradients(encoder, weighed_sum(unpadded(hs_pad, olens)), batch)
        results.append([hs_pad, *found.values(), *encoder.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data())
def test_neither_companions_nor_padding_matter(data):
    pooling = data.draw(st.sampled_from([[], [2], [1, 2]]))
    encoder = tiny_conformer(
        num_blocks=2,
        pooling_layers=pooling,
        chunk_size=data.draw(st.integers(1, 6)),
        left_chunks=data.draw(st.integers(-1, 2)),
        causal_convolution=data.draw(st.booleans()),
    ).eval()
    shortest = fewest_frames(encoder.windows())
    lengths = data.draw(
        st.lists(st.integers(shortest, shortest + 30), min_size=1, max_size=4)
    )
    utterances = random_utterances(lengths)
    with torch.no_grad():
        batch = padded(utterances, data.draw(st.integers(0, 9)), value=float("nan"))
        found = unpadded(*encoder(*batch)[:2])
        alone = [encoder(*padded([features]))[0][0] for features in utterances]
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True], ids=["inside", "causal"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float64", "bfloat16"])
@pytest.mark.parametrize("chunk_size", [2, "dynamic", [0, 1, 5]], ids=str)
def test_training_uses_every_parameter(chunk_size, autocast, causal):
    """As DDP demands, whatever size each process draws."""
    encoder = tiny_conformer(chunk_size=chunk_size, causal_convolution=causal).train()
    batch, lengths = padded(random_utterances(LENGTHS))
    if autocast:
        encoder, batch = encoder.float(), batch.float()
    for seed in range(4):
        torch.manual_seed(seed)
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            hs_pad, olens, _ = encoder(batch, lengths)
        weighed_sum(unpadded(hs_pad, olens)).backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            without_effect = name.endswith("linear_k.bias")
            assert without_effect or parameter.grad.any(), name


def drawn(encoder, n_batches=300):
    torch.manual_seed(0)
    return [encoder.chunks.draw() for _ in range(n_batches)]


def test_dynamic_draws_full_context_for_half_of_the_batches():
    sizes = drawn(tiny_conformer(chunk_size="dynamic"))
    assert 0.4 < sizes.count(0) / len(sizes) < 0.6
    assert set(sizes) == set(range(26))


def test_a_list_is_drawn_evenly_and_can_be_repeated():
    encoder = tiny_conformer(chunk_size=[0, 3, 8])
    sizes = drawn(encoder)
    assert all(0.25 < sizes.count(size) / len(sizes) < 0.42 for size in (0, 3, 8))
    assert drawn(encoder) == sizes


def test_one_size_leaves_the_random_numbers_alone():
    for size in (None, 4):
        encoder = tiny_conformer(chunk_size=size)
        before = torch.get_rng_state()
        assert encoder.chunks.draw() == (size or 0)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0),
        ({"chunk_size": 3}, 3),
        ({"chunk_size": [0, 3]}, 0),
        ({"chunk_size": "dynamic"}, 0),
        ({"chunk_size": [0, 3], "decoding_chunk_size": 3}, 3),
        ({"chunk_size": 3, "decoding_chunk_size": 0}, 0),
        ({"chunk_size": 3, "decoding_chunk_size": 2}, 2),
        ({"decoding_chunk_size": 2}, 2),
    ],
    ids=str,
)
def test_evaluation_has_the_chunks_of_decoding(options, expected):
    batch = padded(random_utterances(LENGTHS))
    found, _, _ = tiny_conformer(**options).eval()(*batch)
    wanted, _, _ = tiny_conformer(chunk_size=expected).eval()(*batch)
    assert torch.equal(found, wanted)
    full, _, _ = tiny_conformer().eval()(*batch)
    assert torch.equal(found, full) == (expected == 0)


def test_the_names_of_parameters_do_not_change():
    """A checkpoint without chunks starts a streaming model, and the reverse."""
    plain = tiny_conformer()
    chunked = tiny_conformer(seed=5, chunk_size="dynamic", causal_convolution=True)
    assert list(plain.state_dict()) == list(chunked.state_dict())
    chunked.load_state_dict(plain.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"chunk_size": -1},
            r"chunk_size -1 must be null, 0 .*a list of these, or dyn",
        ),
        ({"chunk_size": "16"}, "chunk_size '16' must be null"),
        ({"chunk_size": "random"}, "chunk_size 'random' must be null"),
        ({"chunk_size": True}, "chunk_size True must be null"),
        ({"chunk_size": 8.0}, "chunk_size 8.0 must be null"),
        ({"chunk_size": {"a": 1}}, "chunk_size {'a': 1} must be null"),
        ({"chunk_size": []}, r"chunk_size \[\] must contain one or more"),
        ({"chunk_size": [0, -2]}, "chunk_size -2 must be null"),
        ({"chunk_size": [0, None]}, "chunk_size None must be null"),
        ({"chunk_size": 640}, "chunk_size 640 is more than 500 frames.*milliseconds"),
        ({"decoding_chunk_size": 640}, "decoding_chunk_size 640 is more than 500"),
        ({"decoding_chunk_size": -1}, "decoding_chunk_size -1 must be null, 0"),
        ({"decoding_chunk_size": "dynamic"}, "decoding_chunk_size 'dynamic' must be"),
        ({"left_chunks": 2}, "left_chunks 2 has no effect without chunks"),
        ({"left_chunks": 2, "chunk_size": [0]}, "left_chunks 2 has no effect"),
        (
            {"left_chunks": -2, "chunk_size": 4},
            "left_chunks -2 must be an integer >= 0",
        ),
        ({"left_chunks": "all", "chunk_size": 4}, "left_chunks 'all' must be"),
        ({"left_chunks": None, "chunk_size": 4}, "left_chunks None must be"),
        ({"causal_convolution": "inside"}, "causal_convolution 'inside' must be true"),
        ({"causal_convolution": 1}, "causal_convolution 1 must be true or false"),
        (
            {"chunk_size": 4, "cnn_module_kernel": 4},
            "cnn_module_kernel 4 must be an odd",
        ),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=f"^encoder_conf: {message}") as caught:
        tiny_conformer(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("way", ["compile", "export"])
def test_a_chunked_encoder_is_one_graph(way):
    encoder = tiny_conformer(
        num_blocks=2, pooling_layers=[1], chunk_size=3, left_chunks=1
    ).eval()
    speech, lengths = padded(random_utterances([60, 40, 55]))
    with torch.no_grad():
        if way == "compile":
            traced = torch.compile(encoder, fullgraph=True, backend="eager")
        else:
            traced = torch.export.export(encoder, (speech, lengths)).module()
        for these in (lengths, torch.tensor([30, 58, 21])):
            expected, expected_lengths, _ = encoder(speech, these)
            found, found_lengths, _ = traced(speech, these)
            assert torch.equal(found_lengths, expected_lengths)
            found = found[:, : expected.size(1)]
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.slow
def test_a_compiled_encoder_draws_another_size_for_each_batch():
    encoder = tiny_conformer(num_blocks=1, pooling_layers=[], chunk_size=[0, 2, 5])
    batch = padded(random_utterances([30, 22]))
    compiled = torch.compile(encoder, backend="eager")
    outputs = []
    for way in (encoder, compiled):
        torch.manual_seed(2)
        outputs.append([way(*batch)[0].detach() for _ in range(8)])
    assert len({float(hs.sum()) for hs in outputs[0]}) == 3
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


FRONTENDS = {
    "centred": {"n_fft": 256, "hop_length": 80},
    "short window": {"n_fft": 256, "win_length": 200, "hop_length": 80},
    "not centred": {"n_fft": 256, "hop_length": 80, "center": False},
}


@pytest.mark.parametrize("pooling", [[], [1]], ids=str)
@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("layer", ["conv2d_stride2", "conv2d", "linear"])
def test_the_latency_ends_with_the_last_sample_that_a_chunk_sees(
    layer, frontend, pooling
):
    conf = {"input_layer": layer, "chunk_size": 4, "pooling_layers": pooling}
    model = tiny_model(
        input_size=None,
        frontend="default",
        frontend_conf={"fs": RATE, "n_mels": 12, **FRONTENDS[frontend]},
        encoder="cif_conformer",
        encoder_conf={**CIF_CONFORMER["encoder_conf"], **conf, "input_channels": 4},
    ).eval()
    samples = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    samples.requires_grad_()
    hs_pad, _ = model.encode(samples, torch.tensor([24000]))
    (gradient,) = torch.autograd.grad(hs_pad[0, 4].square().sum(), samples)
    end = float(gradient[0].nonzero().max() + 1) / RATE
    latency, times = algorithmic_latency(model, RATE), known_frame_times(model, RATE)
    centre = float(times.centres(torch.tensor(4)))
    assert end - centre == pytest.approx(latency, abs=3 / RATE)
    assert algorithmic_latency(model, RATE, 0) == float("inf")
    longer = algorithmic_latency(model, RATE, 8) - latency
    assert longer == pytest.approx(4 * times.stride)


def test_the_latency_of_another_encoder_is_unknown():
    assert algorithmic_latency(tiny_model(), RATE) is None  # transformer
