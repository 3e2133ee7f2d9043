"""``cif_conformer`` in a batch against utterances that are encoded one by one."""

import pytest
import readable_conformer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_conformer import (
    FEATURES,
    gradients,
    padded,
    random_utterances,
    tiny_conformer,
    unpadded,
    weighed_sum,
)
from torch.utils._python_dispatch import TorchDispatchMode

from espnet_cif_hkd.encoder.frames import (
    INPUT_WINDOWS,
    POOLING,
    fewest_frames,
    frames_after,
)
from espnet_cif_hkd.encoder.front_end import INPUT_LAYERS

LENGTHS = (56, 71, 55, 48)
EXACT = {"rtol": 1e-9, "atol": 1e-9}
# The table of positions is float32, the reader's is not.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def sizes(input_layer):
    """Features wide enough for the convolutions."""
    return {"conv2d8": 15, "conv2d6": 11, None: 8}.get(input_layer, FEATURES)


def assert_all_close(found, expected, **tolerance):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("input_layer", INPUT_LAYERS)
def test_batch_equals_the_reader(input_layer, training):
    features = sizes(input_layer)
    encoder = tiny_conformer(features=features, input_layer=input_layer)
    encoder.train(training)
    utterances = random_utterances(LENGTHS, features=features)
    batch, lengths = padded(utterances, extra=3)
    for tensor in (batch, *utterances):
        tensor.requires_grad_()

    expected = readable_conformer.encode(encoder, utterances)
    hs_pad, olens, _ = encoder(batch, lengths)
    found = unpadded(hs_pad, olens)
    assert olens.tolist() == [len(frames) for frames in expected]
    assert_all_close(found, expected, **CLOSE)

    wanted = gradients(encoder, weighed_sum(expected), *utterances)
    got = gradients(encoder, weighed_sum(found), batch)
    for index, features in enumerate(utterances):
        torch.testing.assert_close(
            got[0][index, : len(features)], wanted.pop(index), **CLOSE
        )
        assert not got[0][index, len(features) :].any()
    del got[0]
    assert got.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], **CLOSE, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"cnn_module_bias": True},
        {"final_norm": True},
        {"macaron_style": False},
        {"activation_type": "relu"},
        {"pooling_layers": []},
        {"pooling_layers": [4, 1]},
        {"num_blocks": 1, "pooling_layers": (1,), "cnn_module_kernel": 1},
    ],
    ids=str,
)
def test_options_equal_the_reader(changes):
    encoder = tiny_conformer(**changes)
    utterances = random_utterances(LENGTHS)
    expected = readable_conformer.encode(encoder, utterances)
    hs_pad, olens, _ = encoder(*padded(utterances))
    assert_all_close(unpadded(hs_pad, olens), expected, **CLOSE)


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data())
def test_neither_companions_nor_padding_matter(data):
    """Alone or among others, however far padded and with what: the same to 1e-9."""
    input_layer = data.draw(st.sampled_from(["conv2d_stride2", "conv2d2", "linear"]))
    n_blocks = data.draw(st.integers(1, 3))
    pooling = data.draw(
        st.lists(st.integers(1, n_blocks), unique=True, max_size=n_blocks)
    )
    windows = INPUT_WINDOWS[input_layer] + POOLING * len(pooling)
    shortest = fewest_frames(windows)
    lengths = data.draw(
        st.lists(st.integers(shortest, shortest + 20), min_size=1, max_size=4)
    )
    extra = data.draw(st.integers(0, 9))
    encoder = tiny_conformer(
        input_layer=input_layer, num_blocks=n_blocks, pooling_layers=pooling
    ).eval()
    utterances = random_utterances(lengths)

    with torch.no_grad():
        alone = [
            encoder(features[None], torch.tensor([len(features)]))
            for features in utterances
        ]
        hs_pad, olens, states = encoder(*padded(utterances, extra, value=77.0))
    assert states is None
    assert hs_pad.shape == (len(lengths), int(olens.max()), 8)
    assert olens.tolist() == [frames_after(length, windows) for length in lengths]
    assert_all_close(unpadded(hs_pad, olens), [hs[0] for hs, _, _ in alone], **EXACT)
    for hs, length in zip(hs_pad, olens.tolist(), strict=True):
        assert not hs[length:].any()


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("input_layer", ["conv2d_stride2", "conv2d", "linear"])
def test_padding_may_hold_anything(input_layer, value, training):
    results = []
    for filling in (0.0, value):
        encoder = tiny_conformer(input_layer=input_layer).train(training)
        batch, lengths = padded(random_utterances(LENGTHS), extra=2, value=filling)
        batch.requires_grad_()
        hs_pad, _, _ = encoder(batch, lengths)
        found = gradients(encoder, hs_pad.square().sum(), batch)
        results.append([hs_pad, *found.values(), *encoder.buffers()])
    for clean, poisoned in zip(*results, strict=True):
        assert torch.equal(clean, poisoned)


def test_dropout_does_not_bring_padding_in():
    """With dropout on, the same random numbers and other padding: the same output."""
    outputs = []
    for value in (0.0, 5.0):
        encoder = tiny_conformer(
            dropout_rate=0.3, attention_dropout_rate=0.3, positional_dropout_rate=0.3
        ).train()
        torch.manual_seed(3)
        outputs.append(encoder(*padded(random_utterances(LENGTHS), value=value))[0])
    assert torch.equal(*outputs)


def test_odd_last_frame_is_dropped_with_and_without_padding():
    encoder = tiny_conformer(
        input_layer="linear", num_blocks=1, pooling_layers=[1]
    ).eval()
    utterance, longer = random_utterances((7, 12))
    last = utterance.clone()
    last[-1] += 1.0
    lens = torch.tensor([7])
    hs_pad, olens, _ = encoder(*padded([utterance, longer]))
    assert olens.tolist() == [3, 6]
    alone, length, _ = encoder(utterance[None], lens)
    assert length.tolist() == [3]
    torch.testing.assert_close(hs_pad[0, :3], alone[0], **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_equals_one_by_one_in_short_types(dtype):
    encoder = tiny_conformer(input_layer="conv2d").float().eval()
    utterances = [features.float() for features in random_utterances(LENGTHS)]
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with torch.no_grad(), autocast:
        hs_pad, olens, _ = encoder(*padded(utterances))
        alone = [encoder(*padded([features]))[0][0] for features in utterances]
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    for found, expected in zip(unpadded(hs_pad, olens), alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_autocast_trains_and_leaves_the_positions_alone():
    encoder = tiny_conformer(input_layer="conv2d").float().train()
    batch, lengths = padded([u.float() for u in random_utterances(LENGTHS)])
    before = encoder(batch, lengths)[0].detach()
    with torch.autocast("cpu", torch.bfloat16):
        hs_pad, _, _ = encoder(batch, lengths)
    hs_pad.float().square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(buffer.dtype != torch.bfloat16 for buffer in encoder.buffers())
    after = encoder(batch, lengths)[0].detach()
    assert torch.equal(before, after), "autocast has changed what float32 gives"
    torch.testing.assert_close(hs_pad.float(), before, rtol=0.2, atol=0.2)


@pytest.mark.parametrize("input_layer", INPUT_LAYERS)
def test_every_parameter_is_used(input_layer):
    """DDP waits for the gradient of each; none may stay without one."""
    features = sizes(input_layer)
    encoder = tiny_conformer(
        features=features, input_layer=input_layer, cnn_module_bias=True
    ).train()
    hs_pad, olens, _ = encoder(*padded(random_utterances(LENGTHS, features=features)))
    weighed_sum(unpadded(hs_pad, olens)).backward()
    unused = [
        name
        for name, parameter in encoder.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # Neither can change anything, in any conformer: a bias before the batch norm, and
    # one that is the same for all keys of an attention.
    without_effect = ("depthwise_conv.bias", "linear_k.bias")
    assert [name for name in unused if not name.endswith(without_effect)] == []
    assert all(parameter.grad is not None for parameter in encoder.parameters())


class _Waits(TorchDispatchMode):
    """Notes operations that wait for the device to know a value or a size."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            index is not None and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if by_mask or name in ("_local_scalar_dense", "nonzero", "masked_select"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_nothing_waits_for_the_device_on_the_way(training):
    encoder = tiny_conformer().train(training)
    batch, lengths = padded(random_utterances(LENGTHS))
    with _Waits() as waits:
        encoder(batch, lengths)
    assert waits.seen == []
    with _Waits() as waits:
        batch[batch > 0], lengths.max().item()
    assert waits.seen == ["index", "_local_scalar_dense"], "the test sees nothing"
