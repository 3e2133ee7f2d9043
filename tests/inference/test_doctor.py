"""Each fault of a set-up is named in one line; no model is loaded."""

import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import fake_recognizer
import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_cif_hkd.cli import check
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference import doctor
from espnet_cif_hkd.inference.doctor import diagnose
from espnet_cif_hkd.inference.findings import FAIL, OK, WARN, Finding

RATE = 16000
CONFIG = {
    "token_list": ["<blank>", "<unk>", "A", "<sos/eos>"],
    "encoder": "conformer",
    "decoder": "cif",
    "frontend_conf": {"fs": "16k"},
    "model_conf": {"ctc_weight": 0.5},
}


class Model(fake_recognizer.FakeRecognizer):
    """Fires as ``alpha`` says; ``weight`` is its only parameter."""

    sampling_rate = RATE

    def __init__(self, alpha=(0.2, 0.6, 0.3), weight=1.0, error=None) -> None:
        self.alpha, self.error = alpha, error
        layer = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(layer.weight, weight)
        self.speech2text = SimpleNamespace(asr_model=layer)

    def frames(self, samples):
        if self.error is not None:
            raise self.error
        alpha = None if self.alpha is None else torch.tensor(self.alpha)
        return SimpleNamespace(alpha=alpha)

    def recognise(self, samples):
        return self._one(np.asarray(samples))


def setup(folder: Path, **changes) -> Path:
    """A training's folder with a small checkpoint; ``changes`` to its config.yaml."""
    folder.mkdir(exist_ok=True)
    config = {k: v for k, v in {**CONFIG, **changes}.items() if v is not None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save({"a": torch.zeros(3)}, folder / "valid.acc.ave.pth")
    return folder


def findings(model: Path | str | None, load=None, **options) -> list[Finding]:
    def default(*_):
        return Model()

    given = None if model is None else str(model)
    found = list(diagnose(given, load=load or default, **options))
    for one in found:
        assert one.message and "\n" not in one.message
    return found


def faults(found: list[Finding], level: str = FAIL) -> list[str]:
    return [f"{one.subject}: {one.message}" for one in found if one.level == level]


def test_a_sound_set_up_has_no_fault(tmp_path: Path) -> None:
    found = findings(setup(tmp_path / "asr"))
    assert faults(found) == []
    assert faults(found, WARN) == [
        "calibration: none: times and confidences are less exact; make it by "
        "espnet-cif calibrate"
    ]
    subjects = [one.subject for one in found if one.level == OK]
    assert {"Python", "ESPnet", "audio reading", "CTC", "firing", "speed"} <= {
        *subjects
    }


@pytest.mark.parametrize(
    ("python", "release", "level", "message"),
    [
        ((3, 9), "202511", FAIL, "Python: 3.9: ESPnet needs 3.10 to 3.12"),
        ((3, 13), "202611", FAIL, "Python: 3.13: ESPnet needs 3.10 to 3.12"),
        ((3, 11), "202412", FAIL, "ESPnet: 202412 is neither of 202511 and 202611: in"),
        ((3, 12), "202511", WARN, "ESPnet: 202511 is not tested with Python 3.12: ins"),
        ((3, 10), "202611", WARN, "ESPnet: 202611 is not tested with Python 3.10: ins"),
        ((3, 10), None, FAIL, "ESPnet: is not installed: python3 -m pip install"),
    ],
)
def test_versions(monkeypatch, python, release, level, message) -> None:
    known = {"espnet": release}
    monkeypatch.setattr(doctor, "_python", lambda: python)
    monkeypatch.setattr(doctor, "version", lambda name: known.get(name, "1.0"))
    find = doctor.importlib.util.find_spec

    def hidden(name, *args):
        return None if name == "espnet2" and release is None else find(name, *args)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", hidden)
    assert any(one.startswith(message) for one in faults(findings(None), level))


def test_packages(monkeypatch) -> None:
    find = doctor.importlib.util.find_spec
    gone = {"soxr", "yaml"}
    monkeypatch.setattr(
        doctor.importlib.util,
        "find_spec",
        lambda name, *args: None if name in gone else find(name, *args),
    )
    monkeypatch.setitem(sys.modules, "soxr", None)
    found = findings(None)
    assert "packages: missing: python3 -m pip install PyYAML soxr" in faults(found)
    assert any("audio reading: " in one and "soxr" in one for one in faults(found))


def test_a_torch_that_does_not_compute(monkeypatch) -> None:
    def broken(*_, **__):
        raise OSError("libgomp.so:\nno such file")

    monkeypatch.setattr(torch, "zeros", broken)
    (fault,) = faults(findings(None))
    assert fault == "torch: cpu: libgomp.so: no such file: install torch again"


def test_a_torchaudio_that_does_not_load(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "torchaudio"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "raise OSError('Could not load this library: lib/_torchaudio.abi3.so')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("torchaudio")]:
        monkeypatch.delitem(sys.modules, name)
    (fault,) = faults(findings(None))
    assert fault.startswith("torchaudio: torchaudio does not load beside this torch")


def test_a_package_that_is_broken(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "humanfriendly", None)
    (fault,) = faults(findings(setup(tmp_path / "asr")))
    assert fault.startswith("model: ModuleNotFoundError: ") and "humanfriendly" in fault


def test_audio_that_cannot_be_read(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert any("audio reading: " in one for one in faults(findings(None)))


def test_a_device_that_is_not_there() -> None:
    (fault,) = faults(findings(None, device="cuda:99"))
    assert fault.startswith("torch: cuda:99: ") and "use --device cpu" in fault


def _with(name: str, content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        setup(folder)
        (folder / name).write_bytes(content)
        return folder

    return build


def _half(folder: Path) -> Path:
    path = setup(folder) / "valid.acc.ave.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def _without(name: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (setup(folder) / name).unlink()
        return folder

    return build


def _archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as opened:
        opened.writestr("a.txt", "no model" * 100)
    return folder.with_suffix(".zip")


def _broken_archive(folder: Path) -> Path:
    path = _archive(folder)
    path.write_bytes(path.read_bytes()[:-60])
    return path


def _training_state(folder: Path) -> Path:
    setup(folder)
    return (folder / "valid.acc.ave.pth").rename(folder / "checkpoint.pth")


def _calibrated(text: str) -> Callable[[Path], Path]:
    return _with("calibration.json", text.encode())


def _other_audio(folder: Path) -> Path:
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(100), 8000)
    (folder / "wav.scp").write_text(f"u1 {folder}/a.wav\n")
    return setup(
        folder,
        train_data_path_and_name_and_type=[[f"{folder}/wav.scp", "speech", "sound"]],
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda folder: folder, "model: .*: no such model"),
        (_without("config.yaml"), "model: .*config.yaml is missing"),
        (_without("valid.acc.ave.pth"), "model: .* has no checkpoint"),
        (_archive, "model: .* is no packed model: it has no meta.yaml"),
        (_broken_archive, "model: .* is no packed model"),
        (_half, "checkpoint: .* is incomplete .*: copy it again"),
        (_with("valid.acc.ave.pth", b""), "checkpoint: .* is empty: copy it"),
        (
            _with("valid.acc.ave.pth", b"version https://git-lfs.github.com/spec/v1\n"),
            "checkpoint: .* is a pointer of Git LFS: run git lfs pull",
        ),
        (_with("valid.acc.ave.pth", b"<html>404"), "checkpoint: .* is no checkpoint"),
        (_training_state, "checkpoint: .* is the state of a training"),
        (_with("config.yaml", b"a: [1\nb: 2"), "config.yaml: .* is no YAML"),
        (_with("config.yaml", b"a: 1"), "config.yaml: .* has no token_list"),
        (
            lambda folder: setup(folder, token_list="data/absent.txt"),
            "config.yaml: token_list is data/absent.txt, which does not exist",
        ),
        (
            lambda folder: setup(folder, bpemodel="data/absent.model"),
            "config.yaml: bpemodel is data/absent.model, which does not exist",
        ),
        (
            lambda folder: setup(
                folder, normalize="global_mvn", normalize_conf={"stats_file": "x.npz"}
            ),
            r"config.yaml: normalize_conf.stats_file is x\.npz, which does not exist",
        ),
        (
            lambda folder: setup(
                folder,
                frontend="speech_teacher",
                frontend_conf={"fs": 16000, "teacher": "downloads/whisper"},
            ),
            "config.yaml: frontend_conf.teacher is downloads/whisper, which does not",
        ),
        (
            lambda folder: setup(folder, preprocessor_conf={"fs": 8000}),
            "sampling rate: frontend_conf.fs 16000 Hz, preprocessor_conf.fs 8000 Hz",
        ),
        (
            lambda folder: setup(folder, frontend_conf={"fs": "fast"}),
            "sampling rate: frontend_conf.fs is 'fast': write 16k",
        ),
        (_other_audio, "sampling rate: .* the training's audio 8000 Hz: correct fs"),
        (_calibrated("{"), "calibration: .* is no calibration"),
        (
            _calibrated(json.dumps({"model": "0", "weights": None, "timing": {}})),
            "calibration: .* is ",
        ),
    ],
)
def test_a_fault_of_the_model_is_named_before_it_is_loaded(
    tmp_path: Path, build: Callable[[Path], Path], message: str
) -> None:
    def load(*_):
        raise AssertionError("the model must not be loaded")

    found = findings(build(tmp_path / "asr"), load)
    (fault,) = faults(found)
    assert re.match(message, fault), fault
    assert found[-1].message.startswith("not tried")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "transformer"}, "CIF: the decoder is transformer, so nothing fir"),
        ({"model_conf": {"ctc_weight": 0.0}}, "CTC: the model was trained without CTC"),
        (
            {"frontend_conf": None},
            "sampling rate: config.yaml has none, so 16000 Hz is",
        ),
    ],
)
def test_doubts_about_the_model(tmp_path: Path, changes, message) -> None:
    found = findings(setup(tmp_path / "asr", **changes))
    assert faults(found) == []
    assert any(one.startswith(message) for one in faults(found, WARN))


def test_both_decoders_with_cif_fire(tmp_path: Path) -> None:
    for decoder in ("cif", "cif_nar"):
        found = findings(setup(tmp_path / decoder, decoder=decoder))
        assert "CIF" not in {one.subject for one in found if one.level == WARN}


@pytest.mark.parametrize(
    ("model", "level", "message"),
    [
        (Model(weight=float("nan")), FAIL, "parameters: weight has NaN or infinity"),
        (Model(alpha=[float("nan")]), FAIL, "firing: alpha is NaN"),
        (Model(alpha=[0.0, 0.01]), WARN, "firing: sum of alpha 0.0 in 5.0 s, 2 frames"),
        (Model(alpha=[0.99, 1.0]), FAIL, "firing: sum of alpha 2.0 .*: every frame"),
        (Model(alpha=None), WARN, "firing: the model has no CIF"),
        (Model(error=RuntimeError("a\nb")), FAIL, "recognition: RuntimeError: a b"),
    ],
)
def test_a_model_that_does_not_work(tmp_path: Path, model, level, message) -> None:
    found = findings(setup(tmp_path / "asr"), lambda *_: model)
    assert any(re.match(message, one) for one in faults(found, level))


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    for error, message in (
        (UserError("the checkpoint lacks 3 keys"), "loading: the checkpoint lacks 3 "),
        (KeyError("encoder"), "loading: KeyError: 'encoder'"),
    ):

        def load(*_, error=error):
            raise error

        (fault,) = faults(findings(setup(tmp_path / "asr"), load))
        assert fault.startswith(message)


def test_audio_of_the_user(tmp_path: Path) -> None:
    model, path = setup(tmp_path / "asr"), tmp_path / "a.wav"
    soundfile.write(path, np.full(2 * RATE, 0.3), RATE)
    found = findings(model, audio=str(path))
    assert "recognition" in {one.subject for one in found if one.level == OK}
    soundfile.write(path, np.full(100, 0.3), RATE)
    (fault,) = faults(findings(model, audio=str(path)))
    assert fault == f"recognition: {path}: no text; is it speech?"
    path.unlink()
    (fault,) = faults(findings(model, audio=str(path)))
    assert fault == f"audio: {path}: no such file"
    nothing = findings(model, lambda *_: Model(alpha=[0.0]), audio=str(path))
    assert faults(nothing)


def test_the_command_prints_lines(tmp_path: Path, monkeypatch, capsys) -> None:
    module = fake_recognizer.module()
    module.Recognizer = lambda model, device: Model()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake_recognizer.MODULE, module)
    assert check.main(["--model", str(setup(tmp_path / "asr"))]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("ok    Python")
    assert out[-1].startswith("ok    speed          real-time factor")
    assert check.main(["--model", str(tmp_path / "absent")]) == 1
    assert "FAIL  model" in capsys.readouterr().out
    assert check.main(["--audio", "a.wav"]) == 1
    assert "--audio needs --model" in capsys.readouterr().err
