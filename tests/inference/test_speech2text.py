"""Decoding from Python with ``espnet_cif_hkd.Speech2Text``."""

import numpy as np
import pytest
import torch
import yaml
from espnet2.bin import asr_inference
from tiny_model import TOKENS, tiny_config, tiny_model

import espnet_cif_hkd

RATE = 8000
CHANGES = {
    "input_size": None,
    "frontend": "default",
    "frontend_conf": {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 8},
    "encoder_conf": {
        "input_layer": "conv2d",
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp")
    config = tiny_config(token_type="char", **CHANGES)
    config_file, model_file = folder / "config.yaml", folder / "1epoch.pth"
    config_file.write_text(yaml.safe_dump(config))
    torch.save(tiny_model(**CHANGES).state_dict(), model_file)
    return config_file, model_file


@pytest.fixture(scope="module")
def speech2text(files):
    return espnet_cif_hkd.Speech2Text(*files, beam_size=2, nbest=2)


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).normal(0, 0.1, int(RATE * seconds))
    return samples.astype(np.float32)


def test_is_espnets_class_and_decodes(speech2text):
    assert isinstance(speech2text, asr_inference.Speech2Text)
    text, tokens, token_ids, hypothesis = speech2text(noise(1.0))[0]
    assert tokens == [TOKENS[i] for i in token_ids]
    assert text == "".join(tokens).replace("<space>", " ")
    assert hypothesis.yseq[0] == hypothesis.yseq[-1] == len(TOKENS) - 1


def test_from_pretrained_gives_our_class(files):
    train_config, model = map(str, files)
    built = espnet_cif_hkd.Speech2Text.from_pretrained(
        asr_train_config=train_config, asr_model_file=model, beam_size=2
    )
    assert type(built) is espnet_cif_hkd.Speech2Text


@pytest.mark.parametrize("samples", [1, 100, 200, 400])
def test_audio_too_short_is_an_empty_hypothesis(speech2text, samples, caplog):
    [(text, tokens, token_ids, hypothesis)] = speech2text(noise(1.0)[:samples])
    assert (text, tokens, token_ids) == ("", [], [])
    assert hypothesis.yseq.tolist() == [len(TOKENS) - 1] * 2
    assert "the hypothesis is empty" in caplog.text


def test_short_utterance_in_a_list(speech2text):
    long, short = noise(1.0), noise(0.05)
    [first, second, third] = speech2text([long, short, long])
    assert second[0][:3] == ("", [], [])
    assert first[0][2] == third[0][2] == speech2text(long)[0][2]


def test_checkpoint_of_another_token_list_is_refused(files, tmp_path):
    config = yaml.safe_load(files[0].read_text())
    config["token_list"][3], config["token_list"][4] = "B", "A"
    other = tmp_path / "config.yaml"
    other.write_text(yaml.safe_dump(config))
    with pytest.raises(espnet_cif_hkd.UserError, match="another token list"):
        espnet_cif_hkd.Speech2Text(other, files[1])
