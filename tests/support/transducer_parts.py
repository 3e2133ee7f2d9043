"""A tiny transducer."""

import argparse

import torch
from espnet2.tasks.asr import ASRTask
from tiny_model import tiny_config

TRANSDUCER = {
    "model": "transducer",
    "decoder": "transducer",
    "decoder_conf": {"hidden_size": 8},
    "joint_net_conf": {"joint_space_size": 8},
}


def transducer_config(**changes):
    """A configuration as of ``tiny_config``."""
    config = tiny_config(**{**TRANSDUCER, **changes})
    config["model_conf"].pop("lsm_weight", None)
    return config


def tiny_transducer(seed=0, std=None, **changes):
    """A model; with ``std`` its parameters are normal numbers of this deviation.

    Larger ones make a search emit more different tokens.
    """
    torch.manual_seed(seed)
    model = ASRTask.build_model(argparse.Namespace(**transducer_config(**changes)))
    for parameter in model.parameters() if std else ():
        torch.nn.init.normal_(parameter, std=std)
    return model
