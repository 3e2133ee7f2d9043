"""LibriSpeech's scripts for speech teachers and for audio without transcripts."""

from pathlib import Path

import librispeech_fixture as fixture
import numpy as np
import pytest
import soundfile
import torch
from tiny_speech_teachers import build_tiny_speech, speech, tiny_extractor, tiny_model

from espnet_cif_hkd.io.tables import read_table

RATE = 16000


def unlabelled(*words: str) -> int:
    code: int = fixture.load("librispeech_unlabelled").main(words)
    return code


def folder_with(folder: Path, seconds: dict[str, float]) -> str:
    lines = []
    for name, length in seconds.items():
        path = folder / f"{name}.flac"
        folder.mkdir(exist_ok=True)
        soundfile.write(path, np.full(round(length * RATE), 0.1), RATE)
        lines.append(f"{name} {path}\n")
    (folder / "wav.scp").write_text("".join(lines))
    return str(folder)


def test_folders_are_joined_in_order(tmp_path: Path) -> None:
    left = folder_with(tmp_path / "left", {"b-1": 1.0, "d-1": 0.5})
    right = folder_with(tmp_path / "right", {"a-1": 2.0, "c-1": 0.1, "e-1": 3.0})
    target = tmp_path / "deep/joined"
    words = ["--data_dir", left, right, "--target", str(target), "--longest", "3"]
    assert unlabelled(*words) == 0
    samples = read_table(target / "utt2num_samples")
    assert list(samples.items()) == [
        *(("a-1", "32000"), ("b-1", "16000"), ("d-1", "8000")),
    ]
    assert list(read_table(target / "wav.scp")) == list(samples)


def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = folder_with(tmp_path / "left", {"a": 1.0, "b": 1.0})
    right = folder_with(tmp_path / "right", {"a": 1.0})

    def refusal(*folders: str) -> str:
        words = ["--data_dir", *folders, "--target", str(tmp_path / "t")]
        assert unlabelled(*words) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    gone = str(tmp_path / "gone")
    assert f"{gone}/wav.scp is missing: run stages 1 to 4 with" in refusal(left, gone)
    assert "a is also in another folder" in refusal(left, right)
    (tmp_path / "left/b.flac").write_bytes(b"fLaC")
    assert "left/b.flac cannot be read" in refusal(left)
    assert not (tmp_path / "t/wav.scp").exists()


def convert(*words: object) -> int:
    code: int = fixture.load("speech_teacher").main([str(word) for word in words])
    return code


def in_torch_format(folder: Path, **left_out: str) -> torch.nn.Module:
    """WavLM as its authors published it: torch's format, old names of weight norms."""
    model: torch.nn.Module = tiny_model("wavlm")
    old = {"original0": "weight_g", "original1": "weight_v"}
    state = {}
    for key, value in model.state_dict().items():
        name = key.replace("parametrizations.weight.", "")
        for new in old:
            name = name.replace(new, old[new])
        state[name] = value
    assert any(key.endswith("weight_g") for key in state)
    model.config.save_pretrained(folder)  # type: ignore[operator, union-attr]
    tiny_extractor("wavlm").save_pretrained(folder)
    for key in left_out.values():
        state = {name: value for name, value in state.items() if key not in name}
    torch.save(state, folder / "pytorch_model.bin")
    return model


@pytest.mark.slow
def test_a_converted_model_has_the_same_outputs(tmp_path: Path) -> None:
    from espnet_cif_hkd.teachers.speech.base import Recording
    from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher

    in_torch_format(tmp_path / "hub")
    target = tmp_path / "downloads" / "wavlm"
    target.parent.mkdir()
    assert convert(tmp_path / "hub", "none", target) == 0
    assert not list(target.parent.glob(".*"))
    safe = build_tiny_speech(tmp_path / "safe", "wavlm")
    recording = [Recording(speech(1.0), RATE)]
    vectors = [
        build_speech_teacher({"teacher": str(folder), "layer": 2}).features(
            recording, torch.device("cpu")
        )[0]
        for folder in (target, safe)
    ]
    torch.testing.assert_close(vectors[0], vectors[1])
    weights = target / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert convert("gone", "none", target) == 0, "an existing folder is kept"
    assert weights.stat().st_mtime_ns == before


def test_what_cannot_be_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(name: object) -> str:
        assert convert(name, "none", tmp_path / "target") == 1
        assert not (tmp_path / "target").exists()
        lines = capsys.readouterr().err.splitlines()
        return next(line for line in lines if line.startswith("error: "))

    assert f"{tmp_path}/gone cannot be read" in refusal(tmp_path / "gone")
    in_torch_format(tmp_path / "hub", without="layers.1.final_layer_norm")
    assert "lacks 2 weights, e.g. encoder.layers.1.final_" in refusal(tmp_path / "hub")
