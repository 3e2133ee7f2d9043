"""An exported model whose frontend is Whisper finds what the model finds."""

import argparse

import pytest
import torch
from espnet2.tasks.asr import ASRTask
from tiny_model import CIF_CONFORMER, tiny_config
from tiny_whisper import RATE, WIDTH, build_tiny_whisper, speech

from espnet_cif_hkd import UserError
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.export.check import compare
from espnet_cif_hkd.inference.export.exporter import Source, export_model
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.io.audio import resample

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


# Whisper's decoder over Whisper's features.
JOINED = {
    "encoder": "joined",
    "encoder_conf": {
        "encoder": "conformer",
        "encoder_conf": {
            "input_layer": "linear",
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
            "rel_pos_type": "latest",
            "pos_enc_layer_type": "rel_pos",
            "selfattention_layer_type": "rel_selfattn",
            "macaron_style": True,
            "use_cnn_module": True,
            "cnn_module_kernel": 3,
        },
    },
    "decoder": "cif_whisper",
}
DECODER = {
    "size": WIDTH,
    "attention_heads": 2,
    "linear_units": 16,
    "num_blocks": 2,
    "max_length": 30,
}


def whisper_model(folder, parts=CIF_CONFORMER, **conf):
    torch.manual_seed(0)
    config = tiny_config(
        **parts,
        input_size=None,
        frontend="speech_teacher",
        frontend_conf={"fs": RATE, "teacher": build_tiny_whisper(folder), **conf},
    )
    model = ASRTask.build_model(argparse.Namespace(**config)).eval()
    random = torch.Generator().manual_seed(1)
    for parameter in model.decoder.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    model.decoder.predictor.output.bias.data.fill_(0.5)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "conf",
    [
        {"pool": 3},
        {"layer": [1, -1], "weights": "value", "teacher_dim": WIDTH},
        {"pad": 0.2},
        {"pad": "full"},
        {"fs": 11025, "pad": 0.2},
    ],
    ids=["reference", "value", "silence", "full", "other rate"],
)
def test_the_same_result_as_the_model(tmp_path, conf):
    rate = conf.get("fs", RATE)
    model = whisper_model(tmp_path / "whisper", **conf)
    source = Source(model, "char", Calibration())
    metadata = export_model(source, tmp_path / "out", int8=True)
    seconds = (0.31, 1.0, 2.017, 3.0)
    waves = [resample(speech(s, n), RATE, rate) for n, s in enumerate(seconds)]
    # The window of this Whisper is three seconds.
    assert metadata["sampling_rate"] == rate
    assert metadata["longest_samples"] == len(waves[-1])
    fewest = metadata["fewest_samples"]
    result = compare(model, tmp_path / "out", [*waves, waves[1][:fewest]])
    result.require()
    assert result.n_recordings == 5 and result.n_tokens > 10
    assert {"alpha", "CTC", "the decoder"} == set(result.deviation)
    runner = OnnxRecognizer(tmp_path / "out", threads=1)
    with pytest.raises(UserError, match=r"3\.1 s is longer than the 3 s"):
        runner.recognise(resample(speech(3.1), RATE, rate))
    both = runner.recognise(waves[:2])
    assert both == [runner.recognise(wave) for wave in waves[:2]] and both[1].text
    assert both[1].duration == 1.0
    assert runner.recognise(waves[1][: fewest - 1]).text == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ({}, {"slack": 3, "bonus": -9.0}),
        ({"prompt_length": 0}, None),
        ({"frame_window": 0}, None),
        ({"frame_window": None}, {"slack": 1}),
    ],
    ids=["window", "no prompt", "vectors only", "all frames"],
)
def test_the_decoder_of_whisper(tmp_path, options, choice):
    parts = {
        **JOINED,
        "decoder_conf": {**DECODER, **options},
        "model_conf": {"length_conf": choice},
    }
    model = whisper_model(tmp_path / "whisper", parts, pool=2, pad=0.2)
    # Each place has another token, and no end precedes the last.
    model.decoder.predictor.output.bias.data.fill_(10.0)
    model.decoder.position.data *= 8
    model.decoder.embed.weight.data[-1] = 0
    metadata = export_model(Source(model, "char", Calibration()), tmp_path / "out")
    assert metadata["decoders"] == ["whisper"] and metadata["longest_text"] == 30
    waves = [speech(s, n) for n, s in enumerate((0.31, 0.6, 0.8, 1.1, 1.2))]
    result = compare(model, tmp_path / "out", waves)
    result.require()
    assert result.n_recordings == 5 and result.n_tokens > 30
    assert {"alpha", "CTC", "the decoder"} == set(result.deviation)
    runner = OnnxRecognizer(tmp_path / "out", threads=1)
    found = runner.recognise(waves)
    assert len(set(max((one.text for one in found), key=len))) > 1
    assert all(one.tokens and one.tokens[-1].end <= one.duration for one in found)
    with pytest.raises(UserError, match="has no decoder 'one_pass', only whisper"):
        OnnxRecognizer(tmp_path / "out", one_pass=True)
    with pytest.raises(UserError, match=r"at most 30 tokens, an utterance has \d+:"):
        runner.recognise(speech(3.0))


def test_what_a_graph_cannot_do(tmp_path):
    source = Source(whisper_model(tmp_path / "w"), "char", Calibration())
    with pytest.raises(UserError, match="has no --no-frontend"):
        export_model(source, tmp_path / "out", with_frontend=False)
    with pytest.raises(UserError, match=r"a stream needs|cannot be streamed"):
        export_model(source, tmp_path / "out", streaming=True)
