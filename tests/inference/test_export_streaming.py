"""An exported stream finds what the stream of the model finds, without torch."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_model import CIF_CONFORMER, tiny_config
from tiny_speech import RATE, noise
from tiny_stream import (
    FRONTEND,
    open_stream,
    streaming_conf,
    streaming_model,
    with_blanks,
)

from espnet_cif_hkd import UserError
from espnet_cif_hkd.cli.export import get_parser, main, run
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.export.check import compare
from espnet_cif_hkd.inference.export.exporter import Source, export_model
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.inference.recognition import Recognition

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
ROOT = Path(__file__).resolve().parents[2]
CHUNKS = streaming_conf()["encoder_conf"]
DECODER = streaming_conf()["decoder_conf"]
CASES = {
    "waits": {},
    "causal": {"causal": True},
    "frame_window": {"frame_window": 2},
    # Chunks of a frame wait for the predictor; nothing overlaps, nothing is mirrored.
    "short chunks": {
        "encoder_conf": {
            **CIF_CONFORMER["encoder_conf"],
            "chunk_size": 1,
            "left_chunks": 0,
            "causal_convolution": True,
        },
        "decoder_conf": {**DECODER, "predictor_conf": {"conv_width": 5}},
        "frontend_conf": {**FRONTEND, "center": False},
    },
    "all left chunks": {
        "encoder_conf": {
            **CHUNKS,
            "input_layer": "conv2d",
            "num_blocks": 3,
            "pooling_layers": [1, 2],
            "chunk_size": 2,
            "left_chunks": -1,
            "final_norm": True,
        },
        "normalize": "global_mvn",
    },
    "Kaldi": {
        "frontend": "kaldi_fbank",
        "frontend_conf": {"fs": RATE, "n_mels": 8, "window": "povey"},
    },
}


def exported_model(folder, **changes):
    """A random model and its export for streams."""
    if changes.get("normalize"):
        random = np.random.default_rng(0)
        stats = folder / "stats.npz"
        total = random.normal(-300, 100, 8)
        np.savez(stats, count=100, sum=total, sum_square=total**2 / 100 + 400)
        changes["normalize_conf"] = {"stats_file": str(stats)}
    model = streaming_model(**changes)
    source = Source(model, "char", Calibration())
    export_model(source, folder / "out", int8=True, streaming=True)
    return model, folder / "out"


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    return exported_model(tmp_path_factory.mktemp("stream"), **CASES[request.param])


def splits(length, seed):
    """Cuts of a recording: none, many, random ones."""
    random = np.random.default_rng(seed)
    yield []
    yield list(range(57, length, 577))
    for _ in range(4):
        yield np.sort(random.integers(0, length + 1, 5)).tolist()


def require_same_streams(ours, theirs, samples, cuts):
    """Equal results after every piece; returns the number of tokens."""
    before = Recognition()
    pieces = [samples[a:b] for a, b in itertools.pairwise([0, *cuts, len(samples)])]
    for piece in (*pieces, None):
        if piece is None:
            found, expected = ours.finish(), theirs.finish()
        else:
            found, expected = ours.accept(piece), theirs.accept(piece)
        assert found.tokens[: len(before.tokens)] == before.tokens
        assert (found.text, found.duration) == (expected.text, expected.duration)
        for one, other in zip(found.tokens, expected.tokens, strict=True):
            assert (one.id, one.text) == (other.id, other.text)
            assert (one.start, one.end) == pytest.approx(
                (other.start, other.end), abs=1e-5
            )
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        if len(ours.alpha):
            alpha = theirs.firing.alpha.numpy()
            np.testing.assert_allclose(ours.alpha, alpha, rtol=0, atol=1e-5)
        found.validate()
        before = found
    return len(before.tokens)


@pytest.mark.slow
def test_every_split_gives_the_stream_of_the_model(exported):
    model, folder = exported
    recognizer = OnnxRecognizer(folder, threads=1)
    assert recognizer.sampling_rate == RATE
    counts = []
    # The last ones: less than a chunk, less than a feature frame, nothing.
    for n, length in enumerate((5000, 3111, 700, 100, 0)):
        for cuts in splits(length, n):
            counts.append(
                require_same_streams(
                    recognizer.stream(),
                    open_stream(model),
                    noise(1.0, seed=n)[:length],
                    cuts,
                )
            )
    assert max(counts) > 1 and counts[-1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["frame_window"], indirect=True)
@pytest.mark.parametrize("beam_size", [1, 3])
def test_passages_and_beams(exported, beam_size):
    model, folder = exported
    recognizer = OnnxRecognizer(folder, threads=1)
    options = {"beam_size": beam_size, "tokens": 2, "limit": 5}
    for cuts in splits(12000, 1):
        ours, theirs = recognizer.stream(**options), open_stream(model, **options)
        count = require_same_streams(ours, theirs, noise(1.5), cuts)
        assert count > 10
    with pytest.raises(UserError, match="the stream has ended"):
        ours.accept(noise(0.1))
    with pytest.raises(UserError, match="a stream has no option 'beam'"):
        recognizer.stream(beam=3)
    with pytest.raises(UserError, match="NaN or infinity"):
        recognizer.stream().accept(np.full(100, np.nan, np.float32))
    whole = (noise(0.5) * 32767).astype(np.int16)
    assert recognizer.stream().accept(whole).duration == 0.5


@pytest.mark.slow
def test_blanks_are_no_tokens(tmp_path):
    model = with_blanks(streaming_model())
    export_model(Source(model, "char", Calibration()), tmp_path, streaming=True)
    stream = OnnxRecognizer(tmp_path, threads=1).stream()
    stream.accept(noise(0.5, seed=5))
    found = stream.finish()
    assert found.tokens and "<blank>" not in found.text
    count = require_same_streams(
        OnnxRecognizer(tmp_path, threads=1).stream(),
        open_stream(model),
        noise(0.5, seed=5),
        [1000, 1003],
    )
    assert count == len(found.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["frame_window"], indirect=True)
def test_state_and_results_are_bounded(exported):
    one = OnnxRecognizer(exported[1], threads=1).stream(tokens=4, limit=8, keep=False)
    sizes, counts, total = [], [], set()
    for n in range(40):
        result = one.accept(noise(0.25, seed=n))
        sizes.append(one.state_bytes)
        counts.append(len(result.tokens))
        total.update(token.end for token in result.tokens)
    # Tokens of a passage: more or fewer
    assert max(sizes[20:]) < 1.2 * max(sizes[:20]) < 100_000
    assert max(counts) < 20 and len(total) > 60


@pytest.mark.slow
def test_8_bits_differ_by_little(exported):
    model, folder = exported
    exact, small = compare(model, folder), compare(model, folder, int8=True)
    exact.require()
    assert exact.n_tokens > 10 and set(exact.deviation) == {"alpha", "the decoder"}
    assert 1e-4 < small.worst < 2 and small.deviation["alpha"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["waits"], indirect=True)
@pytest.mark.parametrize("part", ["encoder.encoders.1", "decoder.predictor", "decoder"])
def test_a_damaged_graph_fails_the_self_check(exported, part):
    model, folder = exported
    module = model.get_submodule(part)
    parameter = next(reversed(list(module.parameters())))
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter += 0.3 * torch.randn(kept.shape)
    try:
        with pytest.raises(UserError, match=r"self-check: (alpha|the decoder) of"):
            compare(model, folder, threads=1).require()
    finally:
        parameter.data = kept


PROBE = """
import sys
for name in ("torch", "espnet", "espnet2", "librosa", "scipy", "yaml"):
    sys.modules[name] = None
import json
import numpy as np
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
stream = OnnxRecognizer(sys.argv[1], threads=1).stream()
for piece in np.split(np.load(sys.argv[2]), 7):
    stream.accept(piece)
print(json.dumps(stream.finish().to_dict()))
"""


@pytest.mark.slow
def test_the_command_and_a_runner_without_torch(tmp_path, caplog):
    folder = tmp_path / "exp"
    folder.mkdir()
    conf = tiny_config(token_type="char", **streaming_conf(frame_window=1))
    (folder / "config.yaml").write_text(yaml.safe_dump(conf), encoding="utf-8")
    state = streaming_model(frame_window=1).state_dict()
    torch.save(state, folder / "1epoch.pth")
    out, other = tmp_path / "out", tmp_path / "offline"
    with caplog.at_level("INFO"):
        main(["--model", str(folder), "--out", str(out), "--streaming"])
    assert "self-check passed: 7 recordings" in caplog.text
    samples = noise(7 * 0.2)
    np.save(tmp_path / "wave.npy", samples)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, out, tmp_path / "wave.npy"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    stream = OnnxRecognizer(out, threads=1).stream()
    stream.accept(samples)
    found = json.loads(done.stdout)
    assert found["text"] == stream.finish().text and len(found["text"]) > 5

    # The same encoder for complete utterances: each frame sees what it sees in a stream
    main(["--model", str(folder), "--out", str(other)])
    result = OnnxRecognizer(other, threads=1).recognise(samples)
    assert result.text == found["text"]
    with pytest.raises(UserError, match="export the model again with --streaming"):
        OnnxRecognizer(other).stream()
    with pytest.raises(UserError, match="exported with --streaming: use stream"):
        OnnxRecognizer(out).recognise(samples)
    with pytest.raises(UserError, match="--streaming has no --no-frontend"):
        given = ["--model", "x", "--out", "y", "--streaming", "--no-frontend"]
        run(get_parser().parse_args(given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_conf": CIF_CONFORMER["encoder_conf"]}, "with full context"),
        ({"normalize": "utterance_mvn"}, "use normalize: global_mvn"),
        (
            {"decoder": "cif_nar"},
            "'decoder: cif', this model has CIFNAR",
        ),
        ({"transducer": True}, "'decoder: cif', this model has TransducerDecoder"),
        ({"frontend": "kaldi_fbank", "frontend_conf": {"stack": 3}}, "joins no"),
    ],
    ids=["context", "mvn", "nar", "transducer", "frontend"],
)
def test_parts_that_cannot_be_exported_for_streams(changes, message, tmp_path):
    source = Source(streaming_model(**changes), "char", Calibration())
    with pytest.raises(UserError, match=message) as caught:
        export_model(source, tmp_path / "out", streaming=True)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
