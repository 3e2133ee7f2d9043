"""Moonshine: geometry, options and errors, with a stand-in for onnxruntime."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_speech_teachers import speech

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.base import Recording
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher

CPU = torch.device("cpu")
WIDTH = 6
_SHAPES = ((1, 4, 127, 64), (4, 4, 7, 3), (4, WIDTH, 3, 2))


def _convolve(samples: np.ndarray) -> np.ndarray:
    """(1, T, 6): convolutions as Moonshine has them, with fixed weights."""
    x = torch.from_numpy(samples)[:, None]
    generator = torch.Generator().manual_seed(0)
    for before, after, width, stride in _SHAPES:
        weight = torch.randn(after, before, width, generator=generator)
        x = torch.nn.functional.conv1d(x, weight / width**0.5, stride=stride)
    return x.transpose(1, 2).numpy()


class _Session:
    def __init__(self, path: str, options: object, providers: list[str]):
        if Path(path).read_bytes() != b"weights":
            raise RuntimeError("no\nprotobuf")

    def get_inputs(self) -> list[Any]:
        names = ("input_values", "attention_mask")
        return [SimpleNamespace(name=name) for name in names]

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        mask = inputs["attention_mask"]
        assert mask.dtype == np.int64 and mask.all()
        assert mask.shape == inputs["input_values"].shape
        return [_convolve(inputs["input_values"])]


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    runtime = SimpleNamespace(InferenceSession=_Session, SessionOptions=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "encoder_model.ort").write_bytes(b"weights")
    return {
        "teacher_type": "moonshine",
        "teacher": str(tmp_path),
        "teacher_dim": WIDTH,
    }


def test_vectors_and_times(conf: dict[str, Any]) -> None:
    teacher = build_speech_teacher(conf)
    samples = speech(0.5)
    recordings = [Recording(samples[:n], 16000) for n in (8000, 895, 1278, 1279)]
    found = teacher.features(recordings, CPU)
    assert [len(one) for one in found] == [19, 1, 1, 2]
    expected = torch.from_numpy(_convolve(samples[None]))[0]
    torch.testing.assert_close(found[0], expected)
    # A frame depends on the samples around its time, and on no other.
    for frame in (0, 7, 18):
        centre = teacher.times.offset + frame * teacher.times.stride
        first, last = round(centre * 16000 - 447.5), round(centre * 16000 + 446.5)
        for place, changes in ((first - 1, 0), (first, 1), (last, 1), (last + 1, 0)):
            if not 0 <= place < len(samples):
                continue
            other = samples.copy()
            other[place] += 1
            (again,) = teacher.features([Recording(other, 16000)], CPU)
            assert bool((again[frame] != found[0][frame]).any()) == changes
    assert teacher.shortest == 895 / 16000
    assert len(pickle.dumps(teacher)) < 2000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_dim": None}, "teacher_dim is not set; Moonshine tiny has 288"),
        ({"layer": 2}, "layer: teacher_type moonshine has only -1"),
        ({"pad": "full"}, "pad: teacher_type moonshine has only exact"),
        ({"teacher_dtype": "bfloat16"}, "has only float32"),
        ({"teacher_conf": {"seed": 1}}, "moonshine has no such options"),
    ],
)
def test_wrong_options_are_refused(
    changes: dict[str, Any], message: str, conf: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=message):
        build_speech_teacher({**conf, **changes})


def test_unusable_models_are_refused(
    conf: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(speech(0.3), 16000, "utt7")

    def error(**changes: Any) -> str:
        with pytest.raises(UserError) as caught:
            build_speech_teacher({**conf, **changes}).features([recording], CPU)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "set teacher_dim to 6" in error(teacher_dim=8)
    first = build_speech_teacher(conf).fingerprint()
    (tmp_path / "encoder_model.ort").write_bytes(b"other")
    assert build_speech_teacher(conf).fingerprint() != first
    assert "encoder_model.ort: cannot be read (no protobuf)" in error()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "run: python3 -m pip install onnxruntime" in error()
    (tmp_path / "encoder_model.ort").unlink()
    assert "there is no encoder_model.ort in it" in error()
    assert build_speech_teacher(conf).fingerprint() is None


@pytest.mark.parametrize("bad", [0, 894])
def test_short_recordings_are_refused(bad: int, conf: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"utt7 \(.* shorter than one frame"):
        recording = Recording(speech(0.1)[:bad], 16000, "utt7")
        build_speech_teacher(conf).features([recording], CPU)
