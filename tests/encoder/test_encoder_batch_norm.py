"""Batch normalisation that leaves padding out, against torch's over unpadded frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_cif_hkd.encoder.batch_norm import MaskedBatchNorm1d

CHANNELS = 3


def make(cls, seed=0):
    generator = torch.Generator().manual_seed(seed)
    norm = cls(CHANNELS).double()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.copy_(torch.rand(CHANNELS, generator=generator) + 0.5)
    return norm


def make_batch(lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), CHANNELS, max(lengths))
    xs = 3 * torch.randn(shape, generator=generator, dtype=torch.float64) + 7
    valid = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return xs, valid.unsqueeze(1)


def in_one_row(xs, valid):
    """The valid frames of all utterances, ``(frames, D)``."""
    return xs.transpose(1, 2)[valid.squeeze(1)]


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(
        lambda lengths: sum(lengths) > 1
    ),
    steps=st.integers(1, 3),
)
def test_equals_torch_over_the_valid_frames(lengths, steps):
    ours, theirs = make(MaskedBatchNorm1d), make(torch.nn.BatchNorm1d)
    for step in range(steps):
        xs, valid = make_batch(lengths, seed=step)
        xs.requires_grad_()
        row = in_one_row(xs, valid)
        weights = torch.arange(row.numel(), dtype=torch.float64).sin().view_as(row)
        found, expected = in_one_row(ours(xs, valid), valid), theirs(row)
        torch.testing.assert_close(found, expected)
        for one, other in zip(
            torch.autograd.grad((found * weights).sum(), [xs, *ours.parameters()]),
            torch.autograd.grad((expected * weights).sum(), [xs, *theirs.parameters()]),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
    for (name, one), (other_name, other) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert name == other_name
        torch.testing.assert_close(one, other)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(xs, valid), theirs(xs))


def test_what_padding_holds_is_not_seen():
    results = []
    for value in (0.0, 1e6):
        norm = make(MaskedBatchNorm1d)
        xs, valid = make_batch([4, 2, 6])
        ys = norm(xs.masked_fill(~valid, value), valid)
        results.append([ys, *norm.buffers()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_one_frame_in_all_is_finite():
    norm = make(MaskedBatchNorm1d)
    xs, valid = make_batch([1])
    ys = norm(xs, valid)
    torch.testing.assert_close(ys[0, :, 0], norm.bias)
    assert all(buffer.isfinite().all() for buffer in norm.buffers())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_short_types_are_float32(dtype):
    """A mean of 256 with a spread of 1 has no room in 16 bits, sums even less."""
    norm = MaskedBatchNorm1d(CHANNELS)
    xs, valid = make_batch([4000, 3000])
    xs = (xs + 250).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        ys = norm(xs, valid)
    assert ys.dtype == dtype
    row = in_one_row(xs, valid).double()
    expected = (row - row.mean(0)) / row.std(0)
    found = in_one_row(ys, valid).double()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(
        norm.running_mean.double(), 0.1 * row.mean(0), rtol=1e-5, atol=0
    )


def test_averaged_checkpoints_load():
    """ESPnet adds states up and divides what is not of an integer type."""
    norms = [make(MaskedBatchNorm1d, seed) for seed in (0, 1)]
    for norm in norms:
        norm(*make_batch([5, 3]))
    states = [norm.state_dict() for norm in norms]
    average = {key: states[0][key] + states[1][key] for key in states[0]}
    for key, value in average.items():
        if not str(value.dtype).startswith("torch.int"):
            average[key] = value / 2
    loaded = make(MaskedBatchNorm1d)
    loaded.load_state_dict(average)
    expected = (norms[0].running_var + norms[1].running_var) / 2
    torch.testing.assert_close(loaded.running_var, expected)
    assert torch.nn.BatchNorm1d(CHANNELS).load_state_dict(average)
