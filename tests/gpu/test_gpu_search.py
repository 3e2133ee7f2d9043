"""Beam search and greedy search give on a GPU what they give on the CPU."""

import numpy as np
import pytest
import torch
import yaml
from tiny_model import tiny_config, tiny_model

from espnet_cif_hkd import Speech2Text

pytestmark = pytest.mark.gpu
RATE = 8000
CHANGES = {
    "input_size": None,
    "frontend": "default",
    "frontend_conf": {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 8},
    "encoder": "cif_conformer",
    "encoder_conf": {
        "input_layer": "conv2d_stride2",
        "input_channels": 4,
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 32,
        "num_blocks": 2,
        "pooling_layers": [1],
        "cnn_module_kernel": 3,
    },
}
WHISPER = {
    "encoder": "joined",
    "encoder_conf": {
        "encoder": "cif_conformer",
        "encoder_conf": {**CHANGES["encoder_conf"], "pooling_layers": []}
        | {"input_layer": "linear"},
    },
    "decoder": "cif_whisper",
    "decoder_conf": {
        "size": 8,
        "attention_heads": 2,
        "linear_units": 32,
        "num_blocks": 2,
        "frame_window": 6,
    },
}
SECONDS = (0.6, 0.9, 1.3, 1.8, 2.4, 3.0)


@pytest.fixture(scope="module", params=["cif", "cif_whisper"])
def files(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("exp")
    changes = CHANGES if request.param == "cif" else {**CHANGES, **WHISPER}
    config = tiny_config(token_type="char", **changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(tiny_model(**changes).state_dict(), folder / "1epoch.pth")
    return str(folder / "config.yaml"), str(folder / "1epoch.pth")


def waves():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, int(RATE * s)).astype(np.float32) for s in SECONDS]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {"greedy": True, "beam_size": 1},
        {"beam_size": 1, "ctc_weight": 0.0},
        {"beam_size": 5, "ctc_weight": 0.0},
        {"beam_size": 5, "ctc_weight": 0.3},
    ],
    ids=["greedy", "beam 1", "beam 5", "beam 5, CTC"],
)
def test_a_search_gives_what_the_cpu_gives(device, files, options, dtype):
    there = Speech2Text(*files, device=device, dtype=dtype, **options)
    here = Speech2Text(*files, device="cpu", dtype=dtype, **options)
    assert next(there.asr_model.parameters()).device.type == device
    seen = 0
    for wave in waves():
        [(text, tokens, ids, found)], [expected] = there(wave), here(wave)
        assert (text, tokens, ids) == tuple(expected[:3])
        assert float(found.score) == pytest.approx(float(expected[3].score), rel=1e-3)
        seen += len(ids)
    assert seen > 20


def test_a_greedy_batch_gives_what_the_cpu_gives(device, files):
    there = Speech2Text(*files, device=device, greedy=True)
    here = Speech2Text(*files, device="cpu", greedy=True)
    together = there(waves())
    for [found], wave in zip(together, waves(), strict=True):
        [expected] = here(wave)
        assert tuple(found[:3]) == tuple(expected[:3])
    assert any(found[2] for [found] in together)
