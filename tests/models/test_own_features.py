"""Features of an utterance are those that it has alone."""

import pytest
import torch
from tiny_model import tiny_model

from espnet_cif_hkd.models.own_features import batches_change_nothing, mirrored_reach

RATE = 8000
FRONTEND = {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 20}
LENGTHS = (4000, 2917, 3999, 4000)


def audio_model(frontend="default", conf=FRONTEND, **more):
    return tiny_model(
        input_size=None, frontend=frontend, frontend_conf=conf, **more
    ).eval()


def features(model, waves):
    speech = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    return model._extract_feats(speech, torch.tensor([len(wave) for wave in waves]))


@pytest.mark.parametrize("change", [{}, {"n_fft": 512}, {"center": False}], ids=str)
def test_companions_change_no_feature(change):
    model = audio_model(conf={**FRONTEND, **change})
    generator = torch.Generator().manual_seed(0)
    waves = [torch.randn(n, generator=generator) for n in LENGTHS]
    feats, lengths = features(model, waves)
    for wave, own, n in zip(waves, feats, lengths):
        alone, [count] = features(model, [wave])
        assert n == count == alone.size(1)
        torch.testing.assert_close(own[:n], alone[0], atol=1e-4, rtol=0)
    assert feats.size(1) == lengths.max()


def test_training_has_espnets_features():
    model = audio_model().train()
    waves = [torch.randn(n) for n in LENGTHS]
    speech = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    expected, _ = model.frontend(speech, torch.tensor(LENGTHS))
    assert torch.equal(features(model, waves)[0], expected)


def test_only_mirrored_features_are_changed():
    assert mirrored_reach(audio_model().frontend) == 128
    assert mirrored_reach(audio_model(conf={**FRONTEND, "center": False}).frontend) == 0
    assert mirrored_reach(None) == 0
    fbank = audio_model("kaldi_fbank", {"fs": RATE, "n_mels": 20})
    assert mirrored_reach(fbank.frontend) == 0 and batches_change_nothing(fbank)


@pytest.mark.parametrize(
    ("normalize", "conf", "alone"),
    [
        (None, {}, True),
        ("utterance_mvn", {}, True),
        ("utterance_mvn", {"norm_vars": True}, False),
    ],
)
def test_where_companions_change_something(normalize, conf, alone):
    model = audio_model(normalize=normalize, normalize_conf=conf)
    assert batches_change_nothing(model) == alone


def test_an_unknown_frontend_is_not_trusted():
    model = audio_model()
    model.frontend = torch.nn.Identity()
    assert not batches_change_nothing(model)
