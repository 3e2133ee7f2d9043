"""Tiny models for streams, and the offline results to compare with."""

import itertools

import torch
from tiny_model import CIF_CONFORMER, TOKENS, tiny_config, tiny_model
from tiny_speech import RATE
from transducer_parts import tiny_transducer

from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.growing_stream import StreamOptions
from espnet_cif_hkd.inference.results import ResultMaker
from espnet_cif_hkd.inference.stream import RecognitionStream

FRONTEND = {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 8}


def spell(symbols):
    return "".join(symbols).replace("<space>", " ")


class Speller:
    """The part of a tokenizer that results need."""

    tokens2text = staticmethod(spell)


def streaming_conf(causal=False, frame_window=0):
    """Changes for ``tiny_config``."""
    return {
        "input_size": None,
        "frontend": "default",
        "frontend_conf": FRONTEND,
        "encoder": "cif_conformer",
        "encoder_conf": {
            **CIF_CONFORMER["encoder_conf"],
            "input_layer": "conv2d_stride2",
            "input_channels": 2,
            "chunk_size": 3,
            "left_chunks": 2,
        },
        "decoder_conf": tiny_config()["decoder_conf"]
        | {"predictor_conf": {"causal": causal}, "frame_window": frame_window},
    }


def streaming_model(causal=False, frame_window=0, transducer=False, **changes):
    """A random model that fires often and emits different tokens."""
    conf = streaming_conf(causal, frame_window)
    if transducer:
        del conf["decoder_conf"]
        model = tiny_transducer(**{**conf, **changes}).eval()
    else:
        model = tiny_model(**{**conf, **changes}).eval()
    generator = torch.Generator().manual_seed(1)
    scale = 1.0 if transducer else 0.3
    parts = [model.decoder, *([model.joint_network] if transducer else [])]
    for name, parameter in itertools.chain(*(one.named_parameters() for one in parts)):
        if "norm" not in name and "predictor" not in name:
            parameter.data += torch.randn(parameter.shape, generator=generator) * scale
    if transducer:
        model.joint_network.lin_out.bias.data[0] += 2.0
    else:
        model.decoder.predictor.output.weight.data *= 0.3
        model.decoder.predictor.output.bias.data.fill_(0.3)
    return model


def with_blanks(model):
    """Let a model say the blank where it said ``<unk>``."""
    for parameter in model.decoder.parameters():
        if parameter.size(0) == len(TOKENS):
            parameter.data[:2] = parameter.data[:2].flip(0)
    return model


def result_maker(model):
    return ResultMaker(model, Speller(), RATE, Calibration())


def open_stream(model, **options):
    return RecognitionStream(
        model, result_maker(model), TOKENS, StreamOptions(**options)
    )


@torch.no_grad()
def offline_frames(model, samples):
    """Encoder frames of the complete audio, ``(1, T, D)``."""
    wave = torch.as_tensor(samples)[None]
    hidden, _ = model.encode(wave, torch.tensor([wave.size(1)]))
    return hidden
