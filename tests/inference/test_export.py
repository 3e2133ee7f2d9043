"""An exported model finds what the model finds, in numpy and onnxruntime alone."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import CIF_CONFORMER, tiny_model
from tiny_speech import CHANGES, RATE, model_files, noise

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.cli import export
from espnet_cif_hkd.cli.export import load_source, main
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.export import check, exporter
from espnet_cif_hkd.inference.export.check import Comparison, compare
from espnet_cif_hkd.inference.export.exporter import Source, export_model
from espnet_cif_hkd.inference.onnx_folder import METADATA
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.search.lengths import choosing

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
ROOT = Path(__file__).resolve().parents[2]
NO_DROPOUT = {"attention_heads": 2, "linear_units": 16, "num_blocks": 2}
OURS = {
    **CHANGES,
    "encoder": "cif_conformer",
    "encoder_conf": {**CIF_CONFORMER["encoder_conf"], "input_layer": "conv2d"},
    "normalize": "utterance_mvn",
    "decoder_conf": {**NO_DROPOUT, "frame_window": 1},
}
KALDI = {
    "frontend": "kaldi_fbank",
    "frontend_conf": {"fs": RATE, "n_mels": 8, "stack": 2, "skip": 2},
    "encoder_conf": {**CIF_CONFORMER["encoder_conf"], "input_layer": "conv2d1"},
}
ESPNETS = {
    "encoder": "conformer",
    "encoder_conf": {
        **CHANGES["encoder_conf"],
        "rel_pos_type": "latest",
        "cnn_module_kernel": 3,
    },
}
CASES = {
    "both decoders": {
        **OURS,
        "model_conf": {"nar_conf": {**NO_DROPOUT, "frame_window": 2}},
    },
    "one pass, Kaldi": {
        **OURS,
        **KALDI,
        "decoder": "cif_nar",
        "decoder_conf": NO_DROPOUT,
    },
    "ESPnet's encoder": {**OURS, **ESPNETS, "normalize": None},
    "at CTC's spikes": {**OURS, "model_conf": {"ctc_guide_firing": "spikes"}},
}
# 0.01 s is too short; the order is not that of the lengths.
SECONDS = (1.0, 0.6, 0.01, 2.1, 0.8)


def trained(folder, **changes):
    """Files of a model whose parameters are random in all parts."""
    folder.mkdir()
    config, parameters = model_files(folder, **changes)
    state = torch.load(parameters)
    generator = torch.Generator().manual_seed(1)
    for name, value in state.items():
        if value.is_floating_point() and "." in name and "mel" not in name:
            extra = 0.2 * torch.randn(value.shape, generator=generator)
            state[name] = value + (extra.abs() if "running_var" in name else extra)
    torch.save(state, parameters)
    if "spikes" in changes.get("model_conf", {}).values():
        torch.save(with_spikes(config, parameters), parameters)
    return config, parameters


@torch.no_grad()
def with_spikes(config, parameters):
    """Parameters of a CTC whose best path has many tokens.

    Frames of noise differ little. Without their mean each has another likeliest token.
    """
    model = Speech2Text(config, parameters, greedy=True).asr_model
    samples = torch.from_numpy(noise(2.0))[None]
    hs_pad, _ = model.encode(samples, torch.tensor([samples.size(1)]))
    linear = model.ctc.ctc_lo
    linear.bias.copy_(-linear.weight @ hs_pad[0].mean(dim=0))
    return model.state_dict()


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    """A model, and the folder of its export with and without the frontend."""
    top = tmp_path_factory.mktemp("export")
    files = trained(top / "exp", **CASES[request.param])
    main(["--model", str(top / "exp"), "--out", str(top / "with"), "--int8"])
    return files, top


@pytest.fixture(scope="module")
def bare(exported):
    """The folder of an export without the frontend."""
    _, top = exported
    main(["--model", str(top / "exp"), "--out", str(top / "without"), "--no-frontend"])
    return top / "without"


def waves():
    return [noise(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.mark.slow
def test_the_same_result_as_the_model(exported):
    files, top = exported
    both = getattr(Speech2Text(*files).asr_model, "nar", None) is not None
    for one_pass in [False, True] if both else [None]:
        options = {"one_pass": True} if one_pass else {}
        model = Speech2Text(*files, greedy=True, return_times=True, **options)
        runner = OnnxRecognizer(top / "with", one_pass=one_pass, threads=1)
        assert runner.sampling_rate == RATE
        assert runner.tokens == tuple(model.asr_model.token_list)
        found = runner.recognise(waves())
        for wave, one in zip(waves(), found, strict=True):
            assert one.duration == len(wave) / RATE
            require_same(one.validate(), model(wave))
            require_same(one, runner.recognise(wave))
        assert found[2].text == "" and sum(len(one.tokens) for one in found) > 10


def require_same(one, other):
    assert (one.text, one.duration) == (other.text, other.duration)
    for ours, theirs in zip(one.tokens, other.tokens, strict=True):
        assert (ours.id, ours.text) == (theirs.id, theirs.text)
        assert ours.start == pytest.approx(theirs.start, abs=1e-3)
        assert ours.end == pytest.approx(theirs.end, abs=1e-3)
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["both decoders"], indirect=True)
def test_features_in_numpy(exported, bare):
    runner = OnnxRecognizer(bare, threads=1)
    other = OnnxRecognizer(exported[1] / "with", threads=1)
    for one, expected in zip(
        runner.recognise(waves()), other.recognise(waves()), strict=True
    ):
        require_same(one, expected)


@pytest.mark.slow
def test_graphs_differ_by_rounding_only_and_8_bits_by_little(exported):
    _, top = exported
    model = load_source(str(top / "exp")).model
    recordings = [noise(0.9, 7), noise(3.0, 8), np.zeros(RATE, np.float32)]
    result = compare(model, top / "with", recordings)
    assert result.worst < 1e-4 and not result.different
    assert result.n_recordings == 3 and result.n_tokens > 10
    assert {"alpha", "CTC"} < set(result.deviation)
    small = compare(model, top / "with", recordings, int8=True)
    assert 1e-4 < small.worst < 2


@pytest.mark.slow
@pytest.mark.parametrize("case", ["both decoders", "at CTC's spikes"])
@pytest.mark.parametrize("bonus", [None, 9.0])
def test_an_exported_model_chooses_the_number_of_tokens(tmp_path, case, bonus):
    changes = CASES[case]
    chooses = {"length_conf": {"slack": 2, "bonus": bonus}}
    model_conf = {**changes["model_conf"], **chooses}
    is_spikes = "ctc_guide_firing" in model_conf
    if is_spikes:
        model_conf["ctc_guide_threshold"] = 0.4
    files = trained(tmp_path / "exp", **{**changes, "model_conf": model_conf})
    if is_spikes:
        state = torch.load(files[1])
        # Frames differ, with half of the probability for blanks: other thresholds fire
        # elsewhere.
        state["ctc.ctc_lo.weight"] *= 10
        state["ctc.ctc_lo.bias"] *= 10
        state["ctc.ctc_lo.bias"][0] += math.log(len(state["ctc.ctc_lo.bias"]) - 1)
        torch.save(state, files[1])
    source = load_source(str(tmp_path / "exp"))
    metadata = export_model(source, tmp_path / "out")
    assert metadata["choice"] == {"slack": 2, "bonus": bonus}
    many = [wave for wave in waves() if len(wave) > 200]
    result = compare(source.model, tmp_path / "out", many)
    result.require()
    assert result.n_recordings == 4 and result.n_tokens > 10
    # Times are those of what was chosen; with a bonus the choice changes texts.
    model = Speech2Text(*files, greedy=True, return_times=True)
    found = OnnxRecognizer(tmp_path / "out", threads=1).recognise(many)
    for wave, one in zip(many, found, strict=True):
        require_same(one, model(wave))
    with choosing(model.asr_model.decoder, None):
        free = [model(wave).text for wave in many]
    assert bonus is None or [one.text for one in found] != free


@pytest.mark.parametrize(
    ("ours", "theirs", "gap"),
    [(-0.5, -0.4, 0.1), (-12.0, -12.12, 0.01), (-np.inf, -1.0, np.inf)],
)
def test_rounding_grows_with_a_log_probability(ours, theirs, gap):
    result = Comparison(n_recordings=1)
    result.note("CTC", np.array([ours]), torch.tensor([theirs]))
    assert result.worst == pytest.approx(gap, rel=0.02)
    with pytest.raises(UserError, match=r"CTC of the exported model differs by"):
        result.require()


@pytest.mark.slow
def test_a_damaged_graph_fails_the_self_check(exported, tmp_path):
    _, top = exported
    source = load_source(str(top / "exp"))
    with torch.no_grad():
        source.model.decoder.output_layer.weight[3] += 0.1
    with pytest.raises(UserError, match=r"self-check: the (one-pass )?decoder of"):
        compare(source.model, top / "with").require()


@pytest.mark.slow
def test_nothing_fires(tmp_path):
    _, parameters = trained(tmp_path / "exp", **CASES["both decoders"])
    state = torch.load(parameters)
    state["decoder.predictor.output.bias"].fill_(-30.0)
    torch.save(state, parameters)
    main(["--model", str(tmp_path / "exp"), "--out", str(tmp_path / "out")])
    for one_pass in (False, True):
        runner = OnnxRecognizer(tmp_path / "out", one_pass=one_pass, threads=1)
        for one in runner.recognise([noise(1.0), noise(2.0)]):
            assert one.text == "" and not one.tokens and one.score == 0.0


PROBE = """
import sys
for name in ("torch", "espnet", "espnet2", "librosa", "scipy", "yaml"):
    sys.modules[name] = None
import json
import numpy as np
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
wave = np.load(sys.argv[2])
result = OnnxRecognizer(sys.argv[1], threads=1).recognise(wave)
print(json.dumps(result.to_dict()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["both decoders"], indirect=True)
def test_the_runner_needs_numpy_and_onnxruntime_only(exported, bare, tmp_path):
    np.save(tmp_path / "wave.npy", noise(1.0))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, bare, tmp_path / "wave.npy"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    expected = OnnxRecognizer(bare, threads=1).recognise(noise(1.0))
    assert found["text"] == expected.text and found["text"]


no_int8 = shutil.ignore_patterns("*.int8.onnx")


@pytest.mark.slow
def test_wrong_folders_and_options(exported, tmp_path):
    _, top = exported
    with pytest.raises(UserError, match="is no exported model"):
        OnnxRecognizer(top / "exp")
    with pytest.raises(UserError, match=r"int8\.onnx is missing: export again with"):
        OnnxRecognizer(
            shutil.copytree(top / "with", tmp_path / "bare", ignore=no_int8), int8=True
        )
    metadata = json.loads((top / "with" / METADATA).read_text())
    (tmp_path / METADATA).write_text(json.dumps({**metadata, "format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        OnnxRecognizer(tmp_path)
    other = metadata["decoders"] == ["one_pass"]
    if len(metadata["decoders"]) == 1:
        with pytest.raises(UserError, match="has no decoder"):
            OnnxRecognizer(top / "with", one_pass=not other)
        with pytest.raises(UserError, match="both decoders"):
            OnnxRecognizer(top / "with", fallback_below=0.5)
    runner = OnnxRecognizer(top / "with", threads=1)
    for bad, message in (
        (np.full(RATE, np.nan, np.float32), "NaN or infinity"),
        (np.zeros((RATE, 2), np.float32), "give one channel"),
        (np.zeros(RATE, np.int32), "has dtype int32"),
    ):
        with pytest.raises(UserError, match=message):
            runner.recognise(bad)
    wave = (noise(1.0) * 20000).astype(np.int16)
    assert runner.recognise(wave) == runner.recognise((wave / 32768).astype(np.float32))
    assert runner.recognise(np.zeros(0, np.float32)).text == ""


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("compared", "names", "error"),
    [
        (interrupted, [], KeyboardInterrupt),
        (lambda *_: Comparison(), [], "all recordings are too short"),
        (lambda *_: Comparison({"CTC": 1.0}, 1), [], "CTC of the exported model"),
        (lambda *_: Comparison({}, 1), ["none.wav"], "none.wav"),
    ],
    ids=["interrupted", "nothing compared", "differs", "no such recording"],
)
def test_a_folder_that_was_not_checked_is_no_exported_model(
    tmp_path, monkeypatch, compared, names, error
):
    def exported(source, folder, *_):
        folder.mkdir()
        (folder / METADATA).write_text("{}")
        return {"sampling_rate": RATE, "seconds": 0}

    monkeypatch.setattr(export, "load_source", lambda name: changed())
    monkeypatch.setattr(exporter, "export_model", exported)
    monkeypatch.setattr(check, "compare", compared)
    words = ["--model", "m", "--out", str(tmp_path / "out")]
    args = export.get_parser().parse_args(words + ["--check", *names] * bool(names))
    one_line = isinstance(error, str)
    with pytest.raises(UserError if one_line else error) as caught:
        export.run(args)
    assert not one_line or error in str(caught.value)
    assert not (tmp_path / "out" / METADATA).exists()


@pytest.mark.parametrize("piece", ["Ġthe", "▁the"])
def test_text_that_needs_a_tokenizer_is_refused(tmp_path, piece):
    source = changed()
    source.model.token_list = [*source.model.token_list[:-1], piece]
    source = dataclasses.replace(source, token_type="hugging_face")
    with pytest.raises(UserError, match="export needs WordPieces"):
        export_model(source, tmp_path)


def changed(**parts):
    """A model without what an export needs."""
    model = tiny_model(**{**OURS, **parts.pop("changes", {})})
    for name, value in parts.items():
        setattr(model, name, value)
    return Source(model, "char", Calibration())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: changed(frontend=None), "reads features from files"),
        (lambda: changed(frontend=torch.nn.Linear(1, 1)), "Linear cannot be exported"),
        (lambda: changed(postencoder=torch.nn.Linear(1, 1)), "postencoder Linear"),
        (lambda: changed(normalize=torch.nn.Linear(1, 1)), "normalize: Linear cannot"),
        (lambda: changed(decoder=torch.nn.Linear(1, 1)), "this model has Linear"),
    ],
)
def test_parts_that_cannot_be_exported_are_named(tmp_path, source, message):
    with pytest.raises(UserError, match=message) as caught:
        export_model(source(), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / METADATA).exists()
