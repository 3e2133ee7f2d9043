"""espnet-cif transcribe with the folder of an exported model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from tiny_model import CIF_CONFORMER, tiny_config
from tiny_speech import CHANGES, RATE, model_files, noise
from tiny_stream import streaming_conf, streaming_model

from espnet_cif_hkd.cli import align, export, transcribe
from espnet_cif_hkd.inference import onnx_runner
from espnet_cif_hkd.inference.joining import joined
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.writers import write
from espnet_cif_hkd.inference.writers.verbose_json import recognition_of

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
ROOT = Path(__file__).resolve().parents[2]
MODEL = {
    **CHANGES,
    "encoder": "cif_conformer",
    "encoder_conf": {**CIF_CONFORMER["encoder_conf"], "input_layer": "conv2d"},
}
WITHOUT_TORCH = """
import sys
for name in ("torch", "espnet", "espnet2", "librosa", "scipy", "yaml"):
    sys.modules[name] = None
from espnet_cif_hkd.cli.espnet_cif import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model, also with 8 bits."""
    top = tmp_path_factory.mktemp("exported")
    (top / "exp").mkdir()
    model_files(top / "exp", **MODEL)
    export.main(["--model", str(top / "exp"), "--out", str(top / "out"), "--int8"])
    return top / "out"


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Two short recordings."""
    folder = tmp_path / "speech"
    folder.mkdir()
    soundfile.write(folder / "one.wav", noise(1.0), RATE, "FLOAT")
    soundfile.write(folder / "two.wav", noise(1.6, 1), RATE, "FLOAT")
    return folder


def run(*words: object) -> int:
    return transcribe.main([str(word) for word in words])


def result(path: Path) -> Recognition:
    return recognition_of(json.loads(path.read_text())).validate()


@pytest.mark.parametrize("more", [[], ["--int8"], ["--greedy"]])
def test_results_are_those_of_the_runner(
    model: Path, speech: Path, tmp_path: Path, more: list[str]
) -> None:
    assert (
        run(speech, "--model", model, "-f", "json", "-o", tmp_path / "out", *more) == 0
    )
    runner = OnnxRecognizer(model, int8="--int8" in more)
    for name in ("one", "two"):
        samples, _ = soundfile.read(speech / f"{name}.wav", dtype="float32")
        expected = runner.recognise(samples)
        found = result(tmp_path / f"out/{name}.json")
        assert found.text == expected.text and found.text
        assert (
            write(expected, name, "json") == (tmp_path / f"out/{name}.json").read_text()
        )


@pytest.mark.parametrize("words", [[], ["--long_above", "1"]])
def test_without_torch(model: Path, speech: Path, words: list[str]) -> None:
    command = ["transcribe", speech / "two.wav", "--model", model, *words]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr


def test_long_audio_is_recognised_in_windows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_runner, "WINDOW", 2.0)
    samples = noise(7.0)
    soundfile.write(tmp_path / "long.wav", samples, RATE, "FLOAT")
    words = (tmp_path / "long.wav", "--model", model, "--long_above", 3)
    assert run(*words, "-f", "json", "-o", tmp_path / "out") == 0

    def read(start: float, end: float) -> Any:
        return samples[round(start * RATE) : round(end * RATE)]

    parts = list(OnnxRecognizer(model).long(read, 7.0))
    assert len(parts) >= 4
    expected = joined(parts, 7.0)
    found = (tmp_path / "out/long.json").read_text()
    assert found == write(expected, "long", "json")
    assert result(tmp_path / "out/long.json").duration == 7.0


def test_an_interrupted_long_recording_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_runner, "WINDOW", 2.0)
    soundfile.write(tmp_path / "long.wav", noise(7.0), RATE, "FLOAT")
    words = (tmp_path / "long.wav", "--model", model, "--long_above", 3, "-f", "json")
    assert run(*words, "-o", tmp_path / "whole") == 0
    real = OnnxRecognizer.recognise
    calls = []

    def counted(self: OnnxRecognizer, samples: Any) -> Any:
        calls.append(samples)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return real(self, samples)

    monkeypatch.setattr(OnnxRecognizer, "recognise", counted)
    stop = 4
    assert run(*words, "-o", tmp_path / "out") == 130
    n_first, stop = len(calls) - 1, 0
    assert run(*words, "-o", tmp_path / "out") == 0
    one, other = (tmp_path / name / "long.json" for name in ("whole", "out"))
    assert one.read_text() == other.read_text()
    n_all = len(calls) - 1
    calls.clear()
    assert run(*words, "-o", tmp_path / "again") == 0
    assert n_first > 1 and n_all < n_first + len(calls)
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_results_of_another_export_are_not_mixed_in(
    model: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(model, tmp_path / "model")
    words = (speech, "--model", other, "-o", tmp_path / "out")
    assert run(*words) == 0
    metadata = json.loads((other / "metadata.json").read_text())
    (other / "metadata.json").write_text(json.dumps({**metadata, "new": 1}))
    assert run(*words) == 1
    assert f"{tmp_path / 'out'} has results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beam", "5"], "--beam: "),
        (["--beam", "5", "--ctc_weight", "0.2"], "leave out --beam"),
        (["--device", "cuda"], "exported models run on the CPU"),
        (["--one_pass"], "has no decoder 'one_pass'"),
        (["--stream"], "was exported for complete utterances"),
    ],
)
def test_refused_in_one_line(
    model: Path,
    speech: Path,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    message: str,
) -> None:
    assert run(speech, "--model", model, *words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_other_commands_name_it(
    model: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [speech / "one.wav", "--model", model, "--text", "a"]
    assert align.main([str(word) for word in words]) == 1
    assert f"error: {model} is an exported model" in capsys.readouterr().err


def test_8_bits_are_those_of_exported_models(
    model: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(speech, "--model", model.with_name("exp"), "--int8") == 1
    assert "is no exported model: export it first" in capsys.readouterr().err


def test_a_model_for_streams(
    tmp_path: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "streaming"
    folder.mkdir()
    conf = tiny_config(token_type="char", **streaming_conf())
    (folder / "config.yaml").write_text(yaml.safe_dump(conf))
    torch.save(streaming_model().state_dict(), folder / "1epoch.pth")
    out = tmp_path / "out"
    export.main(["--model", str(folder), "--out", str(out), "--streaming"])
    capsys.readouterr()
    assert run(speech, "--model", out) == 1
    assert "was exported with --streaming: add --stream" in capsys.readouterr().err
    assert run(speech / "two.wav", "--model", out, "--stream", "-f", "json") == 0
    stream = OnnxRecognizer(out).stream()
    samples = noise(1.6, 1)
    for at in range(0, len(samples), 2560):  # 0.32 s, as the command
        stream.accept(samples[at : at + 2560])
    expected = write(stream.finish(), "two", "json")
    assert capsys.readouterr().out == expected
