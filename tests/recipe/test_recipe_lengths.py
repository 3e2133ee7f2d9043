"""The numbers of frames computed before a training are those of ESPnet's layers."""

import argparse
from typing import Any

import pytest
import torch
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from espnet2.asr.frontend.default import DefaultFrontend

from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.encoder.frames import INPUT_WINDOWS, frames_needed
from espnet_cif_hkd.encoder.front_end import INPUT_LAYERS
from espnet_cif_hkd.recipe.checks.lengths import FrameCounter, frame_counter

ENCODERS = {
    "cif_conformer": CIFConformerEncoder,
    "conformer": ConformerEncoder,
    "transformer": TransformerEncoder,
    "e_branchformer": EBranchformerEncoder,
}
SIZE = {
    "output_size": 4,
    "num_blocks": 3,
    "attention_heads": 1,
    "linear_units": 4,
}
GATE = {"cgmlp_linear_units": 4}


def arguments(encoder: str, conf: dict[str, Any], **frontend: object):
    return argparse.Namespace(
        frontend="default",
        frontend_conf=frontend,
        encoder=encoder,
        encoder_conf=conf,
        preencoder=None,
        postencoder=None,
    )


POOLED = [[1], [2, 3], [1, 2, 3]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "conf"),
    [
        *(("conformer", {"input_layer": f"conv2d{n}"}) for n in ("", 1, 2, 6, 8)),
        ("conformer", {"input_layer": "linear"}),
        ("conformer", {}),
        *(
            ("transformer", {"input_layer": name})
            for name in ("conv2d", "conv2d6", "linear")
        ),
        *(("e_branchformer", {"input_layer": f"conv1d{n}"}) for n in (1, 2, 3)),
        *(("e_branchformer", {"input_layer": f"conv2d{n}"}) for n in ("", 1, 2, 6, 8)),
        ("e_branchformer", {"input_layer": "linear"}),
        ("e_branchformer", {}),
        *(
            ("cif_conformer", {"input_layer": name, "pooling_layers": pooling})
            for name in ("conv2d_stride2", "conv2d", "linear")
            for pooling in POOLED
        ),
        *(
            ("cif_conformer", {"input_layer": f"conv2d{n}", "pooling_layers": [2]})
            for n in (1, 2, 6, 8)
        ),
        ("cif_conformer", {"num_blocks": 10}),
    ],
)
def test_frames_of_the_real_encoder(encoder: str, conf: dict[str, Any]) -> None:
    counter = frame_counter(arguments(encoder, conf, n_fft=64, hop_length=20))
    assert counter is not None
    width = 40
    size = SIZE | (GATE if encoder == "e_branchformer" else {}) | conf
    model = ENCODERS[encoder](width, **size).eval()
    for frames in (*range(1, 60), 101, 202):
        samples = (frames - 1) * 20
        assert counter.features(samples) == frames
        expected = 0
        try:
            with torch.no_grad():
                lengths = model(torch.zeros(1, frames, width), torch.tensor([frames]))
            expected = int(lengths[1][0])
        except Exception as error:
            assert "too short" in str(error) or "size" in str(error), error
        assert counter.encoded(samples) == expected, frames


def test_every_input_layer_of_ours_is_known() -> None:
    assert set(INPUT_LAYERS) <= set(INPUT_WINDOWS)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (400, 160), (256, 110)])
def test_frames_of_the_real_front_end(n_fft: int, hop: int, center: bool) -> None:
    frontend = DefaultFrontend(
        fs=8000, n_fft=n_fft, hop_length=hop, n_mels=4, center=center
    )
    counter = FrameCounter(n_fft, hop, center, ())
    for samples in (n_fft, n_fft + 1, 1000, 1279, 1280, 4321):
        _, lengths = frontend(torch.zeros(1, samples), torch.tensor([samples]))
        assert counter.features(samples) == int(lengths[0]), samples


@pytest.mark.parametrize("center", [True, False])
def test_fewest_samples_of_the_real_front_end(center: bool) -> None:
    frontend = DefaultFrontend(fs=8000, n_fft=256, n_mels=4, center=center)
    fewest = FrameCounter(256, 128, center, ()).fewest_samples
    assert frontend(torch.zeros(1, fewest), torch.tensor([fewest]))[1][0] >= 1
    with pytest.raises(RuntimeError):
        frontend(torch.zeros(1, fewest - 1), torch.tensor([fewest - 1]))


@pytest.mark.parametrize(
    ("encoder", "layer", "changes"),
    [
        ("rnn", "conv2d", {}),
        ("conformer", "other", {}),
        ("conformer", "conv2d", {"frontend": "s3prl"}),
        ("conformer", "conv2d", {"preencoder": "linear"}),
    ],
)
def test_unknown_rules_are_not_guessed(
    encoder: str, layer: str, changes: dict[str, str]
) -> None:
    args = arguments(encoder, {"input_layer": layer})
    vars(args).update(changes)
    assert frame_counter(args) is None


def test_pooling_layers_that_the_encoder_refuses() -> None:
    for pooling_layers in (5, None):
        conf = {"pooling_layers": pooling_layers}
        assert frame_counter(arguments("cif_conformer", conf)) is None


def test_frames_that_ctc_needs() -> None:
    assert frames_needed([]) == 0
    assert frames_needed([5, 6, 7]) == 3
    assert frames_needed([5, 5, 5, 6, 6]) == 8
