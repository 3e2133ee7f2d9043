"""A CIF model of a few thousand parameters, built by ESPnet's own task."""

import argparse
import copy
import functools
import sys
from unittest import mock

import torch
from espnet2.tasks.asr import ASRTask

import espnet_cif_hkd

TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGH", "<sos/eos>"]
FEATURES = 6
# Changes for tiny_config: our own encoder, its frames halved after the first block.
CIF_CONFORMER = {
    "encoder": "cif_conformer",
    "encoder_conf": {
        "input_layer": "linear",
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 2,
        "pooling_layers": [1],
        "cnn_module_kernel": 3,
    },
}


@functools.cache
def espnet_defaults():
    """ESPnet's defaults; its parser of hundreds of options takes a while to build.

    It reads the command line, which is that of pytest.
    """
    with mock.patch.object(sys, "argv", sys.argv[:1]):
        return ASRTask.get_default_config()


def tiny_config(**changes):
    """A complete ESPnet configuration; ``model_conf`` is merged, the rest replaced."""
    espnet_cif_hkd.register()
    config = copy.deepcopy(espnet_defaults())
    config.update(
        token_list=TOKENS,
        input_size=FEATURES,
        frontend=None,
        specaug=None,
        normalize=None,
        encoder="transformer",
        encoder_conf={
            # "linear" is masked throughout: outputs do not depend on companions
            "input_layer": "linear",
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
            "dropout_rate": 0.0,
            "positional_dropout_rate": 0.0,
            "attention_dropout_rate": 0.0,
        },
        decoder="cif",
        decoder_conf={
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
            "dropout_rate": 0.0,
            "positional_dropout_rate": 0.0,
            "self_attention_dropout_rate": 0.0,
            "predictor_conf": {"dropout_rate": 0.0},
        },
        model="cif",
        model_conf={"ctc_weight": 0.5, "lsm_weight": 0.1},
        ctc_conf={},
    )
    config["model_conf"].update(changes.pop("model_conf", {}))
    config.update(changes)
    return config


def tiny_model(seed=0, **changes):
    """Build the model of :func:`tiny_config`."""
    # torch.manual_seed keeps a stack trace for GPUs, which takes milliseconds.
    torch.default_generator.manual_seed(seed)
    return ASRTask.build_model(argparse.Namespace(**tiny_config(**changes)))


def tiny_batch(n_batch=3, seed=0, dtype=torch.float32):
    """Random features and texts of different lengths, as ESPnet's collate gives."""
    generator = torch.Generator().manual_seed(seed)
    speech_lengths = torch.randint(12, 25, (n_batch,), generator=generator)
    text_lengths = torch.randint(2, 7, (n_batch,), generator=generator)
    n_frames = int(speech_lengths.max())
    speech = torch.randn(n_batch, n_frames, FEATURES, generator=generator, dtype=dtype)
    shape = (n_batch, int(text_lengths.max()))
    text = torch.randint(2, len(TOKENS) - 1, shape, generator=generator)
    for b in range(n_batch):
        speech[b, speech_lengths[b] :] = 0.0
        text[b, text_lengths[b] :] = -1
    return {
        "speech": speech,
        "speech_lengths": speech_lengths,
        "text": text,
        "text_lengths": text_lengths,
    }


def slice_batch(batch, chosen):
    cut = {k: v[chosen] for k, v in batch.items()}
    cut["speech"] = cut["speech"][:, : cut["speech_lengths"].max()]
    cut["text"] = cut["text"][:, : cut["text_lengths"].max()]
    return cut


def gradients(model):
    return {
        k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None
    }
