"""Options of ESPnet's model about its frontend, with each of our models."""

import argparse

import pytest
from espnet2.tasks.asr import ASRTask
from espnet_parts import HYBRID
from tiny_model import tiny_config
from tone_teacher import HOSTS, tone
from transducer_parts import transducer_config

MODELS = {
    "cif": tiny_config,
    "hybrid": lambda: tiny_config(**HYBRID),
    "pretrain": lambda: tiny_config(model="pretrain", **HOSTS["pretrain"]),
    "transducer": transducer_config,
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("given", [None, True, False])
def test_options_reach_espnets_class(name, given):
    """ESPnet reads both from the model, so ours must hand them over."""
    config = MODELS[name]()
    assert config["model"] == name
    if name == "pretrain":
        criterion = {"type": "frames", "teachers": {"one": tone()}}
        config["model_conf"] = {"criteria": {"frames": criterion}}
        frontend = {"fs": 8000, "n_fft": 128, "hop_length": 80, "n_mels": 20}
        config |= {"input_size": None, "frontend": "default", "frontend_conf": frontend}
        config["encoder_conf"] = {**config["encoder_conf"], "input_layer": "conv2d"}
    defaults = {"autocast_frontend": False, "extract_feats_in_collect_stats": True}
    expected = {name: defaults[name] if given is None else given for name in defaults}
    if given is not None:
        config["model_conf"] |= expected
    model = ASRTask.build_model(argparse.Namespace(**config))
    assert {name: getattr(model, name) for name in defaults} == expected
