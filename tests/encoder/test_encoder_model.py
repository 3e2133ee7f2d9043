"""Encoders in a complete CIF model, chosen by YAML alone."""

import argparse

import numpy as np
import pytest
import torch
import yaml
from espnet2.tasks.asr import ASRTask
from tiny_model import TOKENS, espnet_defaults, tiny_batch, tiny_config, tiny_model

import espnet_cif_hkd
from espnet_cif_hkd.plugin.compat import ESPNET_RELEASE

RATE = 8000
TINY = {"output_size": 8, "attention_heads": 2, "num_blocks": 2, "linear_units": 16}
TINY |= {"dropout_rate": 0.0, "positional_dropout_rate": 0.0}
ENCODERS = {
    "cif_conformer": TINY | {"pooling_layers": [1], "input_channels": 4},
    "conformer": TINY | {"macaron_style": True, "rel_pos_type": "latest"},
    "e_branchformer": TINY
    | {"cgmlp_linear_units": 16, "use_ffn": True, "macaron_ffn": True},
}
PAPER = {
    "frontend": None,
    "specaug": None,
    "normalize": None,
    "input_size": 80,
    "encoder": "cif_conformer",
    "encoder_conf": {
        "input_layer": "conv2d_stride2",
        "output_size": 256,
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 15,
        "pooling_layers": [5, 10],
        "cnn_module_kernel": 15,
    },
    "decoder": "cif",
    "decoder_conf": {
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 2,
        "predictor_conf": {"conv_width": 3},
    },
    "model": "cif",
}
HKD = {
    "criterion": "hkd",
    "criterion_conf": {"teacher": "bert-base-chinese", "teacher_dim": 768},
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def papers_model(n_units, model_conf):
    espnet_cif_hkd.register()
    units = [f"unit{n}" for n in range(n_units - 2)]
    config = espnet_defaults() | PAPER
    config.update(
        token_list=["<blank>", *units, "<sos/eos>"], model_conf=model_conf, ctc_conf={}
    )
    return ASRTask.build_model(argparse.Namespace(**config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_units", "expected"), [(4234, 47_208_587), (4233, 47_207_818)]
)
def test_the_papers_model_has_the_papers_size(n_units, expected):
    """The original's log has 4,234 units, ESPnet's list 4,233."""
    model = papers_model(n_units, {})
    assert count(model) == expected
    assert count(model.encoder.embed) == 1_345_280
    assert count(model.encoder.encoders) == 15 * 2_634_496
    assert count(model.decoder.predictor) == 197_121


@pytest.mark.slow
def test_distillation_adds_its_projections_and_nothing_else():
    model = papers_model(4234, HKD)
    assert count(model) - count(model.criterion) == 47_208_587
    assert count(model.criterion) == 2 * (256 * 768 + 768)


@pytest.mark.parametrize("name", ENCODERS)
def test_trains_without_an_unused_parameter(name):
    """As DDP demands of a training step without ``find_unused_parameters``."""
    model = tiny_model(encoder=name, encoder_conf=ENCODERS[name], input_size=12)
    batch = tiny_batch(3)
    batch["speech"] = torch.randn(3, 60, 12)
    batch["speech_lengths"] = torch.tensor([60, 47, 52])
    loss, stats, _ = model.train()(**batch)
    loss.backward()
    assert torch.isfinite(loss)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    _, stats, _ = model.eval()(**batch)
    assert torch.isfinite(stats["loss"])


def test_utterance_mvn_does_not_bring_padding_in():
    """It leaves minus the mean in padded frames."""
    model = tiny_model(
        encoder="cif_conformer",
        encoder_conf=ENCODERS["cif_conformer"],
        input_size=12,
        normalize="utterance_mvn",
        normalize_conf={},
    ).eval()
    generator = torch.Generator().manual_seed(0)
    speech = torch.randn(3, 60, 12, generator=generator) + 5.0
    lengths = torch.tensor([60, 37, 44])
    with torch.no_grad():
        hs_pad, olens = model.encode(speech, lengths)
        for features, length, hs, olen in zip(
            speech, lengths, hs_pad, olens, strict=True
        ):
            alone, own = model.encode(features[None, :length], length[None])
            assert own == olen
            torch.testing.assert_close(hs[:olen], alone[0], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=ENCODERS)
def speech2text(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp")
    changes = {
        "input_size": None,
        "frontend": "default",
        "frontend_conf": {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 12},
        "normalize": "utterance_mvn",
        "normalize_conf": {},
        "encoder": request.param,
        "encoder_conf": ENCODERS[request.param],
    }
    config, weights = folder / "config.yaml", folder / "1epoch.pth"
    config.write_text(yaml.safe_dump(tiny_config(token_type="char", **changes)))
    torch.save(tiny_model(**changes).state_dict(), weights)
    return espnet_cif_hkd.Speech2Text(config, weights, beam_size=2)


def noise(seconds, seed=0):
    """Noise, then 50 ms of silence: its last frames are the same under padding."""
    samples = np.random.default_rng(seed).normal(0, 0.1, int(RATE * seconds))
    samples[-RATE // 20 :] = 0.0
    return samples.astype(np.float32)


def test_decodes(speech2text):
    text, tokens, token_ids, hypothesis = speech2text(noise(1.0))[0]
    assert tokens == [TOKENS[i] for i in token_ids]
    assert text == "".join(tokens).replace("<space>", " ")
    assert np.isfinite(float(hypothesis.score))


def test_too_short_audio_is_an_empty_hypothesis(speech2text, caplog):
    [(text, tokens, _, _)] = speech2text(noise(1.0)[: 3 * 80])
    assert (text, tokens) == ("", [])
    assert "too short" in caplog.text


@pytest.mark.parametrize("speech2text", ["cif_conformer"], indirect=True)
def test_batches_of_audio_equal_single_utterances(speech2text):
    if ESPNET_RELEASE < "202611":
        pytest.skip("ESPnet 202511 decodes one utterance at a time")
    utterances = [noise(seconds, seed) for seed, seconds in enumerate((1.0, 0.6, 0.9))]
    together = speech2text(utterances)
    for [found, *_], utterance in zip(together, utterances, strict=True):
        [expected, *_] = speech2text(utterance)
        assert found[2] == expected[2]
        scores = float(found[3].score), float(expected[3].score)
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)
