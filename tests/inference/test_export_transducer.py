"""An exported transducer finds what the greedy search of the model finds."""

import numpy as np
import pytest
import torch
import yaml
from test_export import require_same
from tiny_model import TOKENS
from tiny_speech import CHANGES, RATE, noise
from transducer_parts import tiny_transducer, transducer_config

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.cli.export import main
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.export.check import compare
from espnet_cif_hkd.inference.export.exporter import Source, export_model
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
CONFORMER = {
    "encoder": "cif_conformer",
    "encoder_conf": {
        **CHANGES["encoder_conf"],
        "num_blocks": 2,
        "pooling_layers": [1],
        "cnn_module_kernel": 3,
    },
}
CASES = {
    "lstm": {
        **CONFORMER,
        "normalize": "utterance_mvn",
        "decoder_conf": {"hidden_size": 8, "num_layers": 2},
    },
    "gru, ESPnet's encoder": {"decoder_conf": {"hidden_size": 8, "rnn_type": "gru"}},
    # Chunks, offline
    "chunks": {
        **CONFORMER,
        "encoder_conf": {**CONFORMER["encoder_conf"], "chunk_size": 2},
    },
}
SECONDS = (1.0, 0.6, 0.01, 2.1, 0.8)


def random_transducer(**changes):
    """A model that emits different tokens and blanks."""
    model = tiny_transducer(**{**CHANGES, **changes}).eval()
    random = torch.Generator().manual_seed(1)
    for part, scale in ((model.decoder, 0.4), (model.joint_network, 1.0)):
        for parameter in part.parameters():
            parameter.data += torch.randn(parameter.shape, generator=random) * scale
    model.joint_network.lin_out.bias.data[0] += 3.0
    return model


def loud_and_quiet(seconds, seed):
    """Noise whose loudness changes."""
    wave = noise(seconds, seed)
    loudness = 10.0 ** (1 - 3 * np.sin(9 * np.arange(len(wave)) / RATE) ** 2)
    return (wave * loudness).astype(np.float32)


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    """Files of a model, and the folder of its export."""
    folder = tmp_path_factory.mktemp("transducer")
    changes = CASES[request.param]
    conf = transducer_config(**CHANGES | changes, token_type="char")
    config, parameters = folder / "config.yaml", folder / "1epoch.pth"
    config.write_text(yaml.safe_dump(conf), encoding="utf-8")
    torch.save(random_transducer(**changes).state_dict(), parameters)
    main(["--model", str(folder), "--out", str(folder / "out"), "--int8"])
    return (str(config), str(parameters)), folder / "out"


@pytest.mark.slow
def test_the_same_result_as_the_model(exported):
    files, folder = exported
    model = Speech2Text(*files, greedy=True, return_times=True)
    runner = OnnxRecognizer(folder, threads=1)
    assert runner.tokens == tuple(TOKENS) and not runner.one_pass
    waves = [loud_and_quiet(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    found = runner.recognise(waves)
    for wave, one in zip(waves, found, strict=True):
        expected = model(wave)
        require_same(one.validate(), expected)
        require_same(one, runner.recognise(wave))
        if one.tokens:
            assert one.score == pytest.approx(expected.score, abs=1e-3)
    ids = [token.id for one in found for token in one.tokens]
    assert len(ids) > 10 and len(set(ids)) > 3
    frames = runner.encode(waves[:1])["frame_lengths"][0]
    assert len(found[0].tokens) < frames  # blanks, too
    assert compare(model.asr_model, folder, waves).worst < 1e-4
    small = compare(model.asr_model, folder, waves, int8=True)
    assert 1e-5 < small.worst < 2


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["lstm"], indirect=True)
def test_a_damaged_graph_and_wrong_options(exported):
    files, folder = exported
    model = Speech2Text(*files).asr_model
    with torch.no_grad():
        model.decoder.decoder[1].weight_hh_l0 += 0.1
    with pytest.raises(UserError, match="self-check: the joint network of"):
        compare(model, folder, threads=1).require()
    with pytest.raises(UserError, match="fallback_below needs one_pass"):
        OnnxRecognizer(folder, fallback_below=0.5)
    with pytest.raises(UserError, match="export the model again with --streaming"):
        OnnxRecognizer(folder).stream()


def test_a_transducer_without_ctc_has_no_times(tmp_path):
    model = random_transducer(model_conf={"ctc_weight": 0.0})
    with pytest.raises(UserError, match="without CTC knows no times"):
        export_model(Source(model, "char", Calibration()), tmp_path)
