"""Times of encoder frames against receptive fields, measured by gradients."""

import pytest
import torch
from espnet2.asr.encoder.branchformer_encoder import BranchformerEncoder
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.contextual_block_conformer_encoder import (
    ContextualBlockConformerEncoder,
)
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
from espnet2.asr.encoder.rnn_encoder import RNNEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.asr.frontend.windowing import SlidingWindow
from tiny_model import tiny_config, tiny_model

from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.frames import INPUT_WINDOWS, centre_of_first
from espnet_cif_hkd.encoder.geometry import (
    encoder_windows,
    feature_times,
    frame_times,
    known_frame_times,
)

FEATURES, RATE, FRAMES = 20, 8000, 240
# Input layer -> frame n is centred at "offset + n · stride" feature frames.
TABLE = {
    "conv2d": (3, 4),
    "conv2d1": (2, 1),
    "conv2d2": (3, 2),
    "conv2d6": (5, 6),
    "conv2d8": (7, 8),
    "conv1d1": (2, 1),
    "conv1d2": (2, 2),
    "conv1d3": (3, 3),
    "linear": (0, 1),
    "conv2d_stride2": (1, 2),
}
LAYERS = ["conv2d", "conv2d1", "conv2d2", "conv2d6", "conv2d8", "linear"]
ESPNET = [
    *((ConformerEncoder, layer) for layer in LAYERS),
    *((TransformerEncoder, layer) for layer in [*LAYERS, "conv1d2"]),
    *((BranchformerEncoder, layer) for layer in LAYERS),
    *((EBranchformerEncoder, f"conv1d{n}") for n in (1, 2, 3)),
    *((EBranchformerEncoder, layer) for layer in LAYERS),
    *(
        (ContextualBlockConformerEncoder, layer)
        for layer in ("linear", "conv2d", "conv2d6", "conv2d8")
    ),
]


def seen(embed, n_frames, place):
    """First and last input frame with an effect on an output frame."""
    first, last = n_frames, -1
    for seed in range(4):  # max pooling sees one of its frames at a time
        torch.manual_seed(seed)
        xs = torch.randn(1, n_frames, FEATURES, requires_grad=True)
        ys = embed(xs)
        total = ys[0, place].square().sum()
        (gradient,) = torch.autograd.grad(total, xs)
        touched = gradient[0].abs().sum(-1).nonzero().flatten()
        first = min(first, int(touched[0]))
        last = max(last, int(touched[-1]))
    return first, last, ys.size(1)


def assert_centres(embed, windows, expected):
    assert centre_of_first(windows) == expected
    offset, stride = expected
    first, last, n_out = seen(embed, FRAMES, 2)
    assert (first + last) / 2 == offset + 2 * stride
    first, last, _ = seen(embed, FRAMES, n_out - 1)
    assert (first + last) / 2 == offset + (n_out - 1) * stride
    assert FRAMES - last <= 2 * stride  # the last frame sees the end of the utterance


@pytest.mark.parametrize(
    ("klass", "layer"), ESPNET, ids=lambda value: getattr(value, "__name__", value)
)
def test_espnets_encoders(klass, layer):
    encoder = klass(FEATURES, 8, attention_heads=2, num_blocks=1, input_layer=layer)
    if layer == "linear":
        assert encoder_windows(encoder) == ()
        return

    def embed(xs):
        ys, _ = encoder.embed(xs, torch.ones(1, 1, xs.size(1), dtype=torch.bool))
        return ys[0] if isinstance(ys, tuple) else ys

    encoder.eval()
    assert_centres(embed, encoder_windows(encoder), TABLE[layer])


@pytest.mark.parametrize("pooling", [[], [1], [1, 2]], ids=len)
@pytest.mark.parametrize("layer", ["conv2d_stride2", *LAYERS])
def test_our_encoder(layer, pooling):
    encoder = CIFConformerEncoder(
        FEATURES, 8, 2, 8, num_blocks=2, pooling_layers=pooling, input_layer=layer
    ).eval()
    for block in encoder.encoders:  # what is left: the input layer and the pooling
        block.forward = lambda xs, pos_emb, mask, *, chunks: xs
    offset, stride = TABLE[layer]
    for n in range(len(pooling)):
        offset, stride = offset + stride / 2, 2 * stride
        if n == 0:  # before the pooling that follows block 1
            assert centre_of_first(encoder.windows(1)) == TABLE[layer]
    windows = encoder_windows(encoder)

    def embed(xs):
        return encoder(xs, torch.tensor([xs.size(1)]))[0]

    assert_centres(embed, windows, (offset, stride))


def test_the_table_of_names_has_the_same_centres():
    assert {
        name: centre_of_first(windows)
        for name, windows in INPUT_WINDOWS.items()
        if name in TABLE
    } == TABLE


FRONTENDS = {
    "centred": DefaultFrontend(fs=RATE, n_fft=256, hop_length=80, n_mels=FEATURES),
    "short window": DefaultFrontend(
        fs=RATE, n_fft=256, win_length=200, hop_length=80, n_mels=FEATURES
    ),
    "not centred": DefaultFrontend(
        fs=RATE, n_fft=256, hop_length=80, n_mels=FEATURES, center=False
    ),
    "sliding window": SlidingWindow(win_length=200, hop_length=80),
}


@pytest.mark.parametrize("name", FRONTENDS)
def test_features_are_centred_where_an_impulse_is_loudest(name):
    frontend = FRONTENDS[name]
    times = feature_times(frontend, RATE)
    assert times.stride == pytest.approx(0.01)
    n = 30
    position = round(float(times.centres(torch.tensor(n))) * RATE)
    samples = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    samples.requires_grad_()
    features, lengths = frontend(samples, torch.tensor([8000]))
    (gradient,) = torch.autograd.grad(features[0, n].sum(), samples)
    touched = gradient[0].nonzero().flatten()
    assert abs(float(touched[0] + touched[-1]) / 2 - position) <= 1  # samples
    end = float(times.centres(lengths[0] - 1)) * RATE
    assert 8000 - 256 <= end <= 8000


@pytest.mark.parametrize("layer", LAYERS)
def test_an_impulse_is_in_the_frame_that_the_times_name(layer):
    """Through frontend and sub-sampling, also in the last frame: less than one hop."""
    model = tiny_model(**_audio(layer)).eval()
    times = known_frame_times(model, RATE)
    n_samples, hop = 16000, 80
    _, hlens = model.encode(torch.randn(1, n_samples), torch.tensor([n_samples]))
    n_frames = int(hlens[0])
    first, last = _receptive_field(model, n_samples, n_frames // 2)
    centre = float(times.centres(torch.tensor(n_frames // 2))) * RATE
    assert abs((first + last) / 2 - centre) < hop
    # The frontend reflects the end of the audio, so only the beginning is measured.
    beginning, _ = _receptive_field(model, n_samples, n_frames - 1)
    centre = float(times.centres(torch.tensor(n_frames - 1))) * RATE
    assert abs(beginning + (last - first) / 2 - centre) < hop
    end = float(times.seconds(torch.tensor(n_frames), n_samples / RATE))
    assert 0 <= n_samples / RATE - end < 2 * times.stride
    assert times.seconds(torch.tensor(0.0)) >= 0


def _audio(layer):
    config = tiny_config()["encoder_conf"]
    return {
        "input_size": None,
        "frontend": "default",
        "frontend_conf": {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 20},
        "encoder_conf": {**config, "input_layer": layer},
    }


def _receptive_field(model, n_samples, frame):
    samples = torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0))
    samples.requires_grad_()
    features, _ = model.frontend(samples, torch.tensor([n_samples]))
    embed = model.encoder.embed
    mask = torch.ones(1, 1, features.size(1), dtype=torch.bool)
    linear = isinstance(embed, torch.nn.Sequential)
    ys = embed(features) if linear else embed(features, mask)[0]
    (gradient,) = torch.autograd.grad(ys[0, frame].square().sum(), samples)
    touched = gradient[0].nonzero().flatten()
    return float(touched[0]), float(touched[-1])


def test_an_unknown_encoder_is_estimated_with_a_warning(caplog):
    model = tiny_model(**_audio("conv2d"))
    assert frame_times(model, RATE, 16000, 48) == known_frame_times(model, RATE)
    assert not caplog.text
    model.encoder = RNNEncoder(FEATURES)
    assert encoder_windows(model.encoder) is None
    times = frame_times(model, RATE, 16000, 50)
    assert (times.offset, times.stride) == pytest.approx((0.02, 0.04))
    assert "RNNEncoder" in caplog.text and "estimated" in caplog.text
    model.frontend = None
    assert known_frame_times(model, RATE) is None
