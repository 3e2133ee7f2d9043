"""Kaldi's features: in torch, in numpy, and those of Kaldi's own code."""

import numpy as np
import pytest
import torch

from espnet_cif_hkd.encoder.geometry import feature_rate, feature_times
from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.features import FeatureSpec

RATE = 16000


def speech(n_samples, seed=0):
    """Noise whose loudness changes, as that of speech does."""
    random = np.random.default_rng(seed)
    time = np.arange(n_samples) / RATE
    loud = 10.0 ** (-1 - 3 * np.sin(9 * time) ** 2)
    return (random.normal(0, 1, n_samples) * loud).clip(-1, 1).astype(np.float32)


def kaldi(samples, rate=RATE, window="hamming", n_mels=80):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = rate
    options.frame_opts.window_type = window
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = n_mels
    options.mel_opts.high_freq = 0
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(rate, (samples * 32768).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(n) for n in range(fbank.num_frames_ready)])


@pytest.mark.parametrize(
    ("rate", "window", "n_mels"),
    [(16000, "hamming", 80), (16000, "povey", 40), (11025, "hamming", 23)],
)
def test_equal_to_kaldis_own_code(rate, window, n_mels):
    samples = speech(20_000)
    frontend = KaldiFbankFrontend(fs=rate, window=window, n_mels=n_mels)
    feats, lengths = frontend(torch.tensor(samples)[None], torch.tensor([20_000]))
    expected = kaldi(samples, rate, window, n_mels)
    assert lengths.tolist() == [len(expected)] and frontend.output_size() == n_mels
    np.testing.assert_allclose(feats[0], expected, atol=5e-3)
    assert np.abs(feats[0].numpy() - expected).mean() < 1e-4


@pytest.mark.parametrize(("stack", "skip"), [(1, 1), (7, 6), (4, 3)])
def test_batches_numpy_and_stored_parameters(tmp_path, stack, skip):
    frontend = KaldiFbankFrontend(stack=stack, skip=skip, n_mels=20)
    frontend.spec.save(tmp_path / "spec.npz")
    spec = FeatureSpec.load(tmp_path / "spec.npz")
    assert spec.rate == RATE and type(spec.hop) is int and spec.mean is True
    lengths = [9000, 401, 16000, 300, 400, 559, 560]
    waves = [speech(length, seed) for seed, length in enumerate(lengths)]
    batch = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(wave) for wave in waves], batch_first=True, padding_value=9.0
    )
    feats, counts = frontend(batch, torch.tensor(lengths))
    for wave, found, count in zip(waves, feats, counts.tolist(), strict=True):
        expected = spec(wave)
        assert count == len(expected) == spec.n_frames(len(wave))
        np.testing.assert_allclose(found[:count], expected, atol=1e-3)
        assert found[count:].abs().sum() == 0
    assert counts.tolist()[3:] == [0, 1, 1, 2 if skip == 1 else 1]


def test_joined_frames_repeat_the_ends():
    plain = KaldiFbankFrontend(n_mels=3)
    joined = KaldiFbankFrontend(n_mels=3, stack=3, skip=2)
    wave = torch.tensor(speech(400 + 160 * 4))[None]  # five frames
    one, _ = plain(wave, torch.tensor([wave.size(1)]))
    two, count = joined(wave, torch.tensor([wave.size(1)]))
    assert count.tolist() == [3]
    rows = [[0, 0, 1], [1, 2, 3], [3, 4, 4]]
    torch.testing.assert_close(two[0], one[0][torch.tensor(rows)].flatten(1))


def test_times_and_rate():
    times = feature_times(KaldiFbankFrontend(), RATE)
    assert (times.offset, times.stride) == (0.0125, 0.01)
    times = feature_times(KaldiFbankFrontend(stack=7, skip=6), RATE)
    assert (times.offset, times.stride) == (0.0125, 0.06)
    assert feature_rate(KaldiFbankFrontend(fs="11025")) == 11025


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "hann"}, "choose hamming or povey"),
        ({"n_mels": 0}, "n_mels 0 must be"),
        ({"frame_length": 0.025}, "are milliseconds"),
        ({"fs": "fast"}, "is no sampling rate"),
        ({"stack": 2.5}, r"stack 2\.5 must be"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        KaldiFbankFrontend(**options)
