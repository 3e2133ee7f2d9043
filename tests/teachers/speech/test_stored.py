"""Vectors of speech teachers in a store."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_speech_teachers import WIDTH, build_tiny_speech, speech

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.base import Recording, recording_key
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher
from espnet_cif_hkd.teachers.speech.stored import StoredSpeechTeacher
from espnet_cif_hkd.teachers.store.writer import dump_store

CPU = torch.device("cpu")
RECORDINGS = [
    Recording(speech(seconds, n), 16000, f"utt{n}")
    for n, seconds in enumerate([0.4, 0.7, 0.3])
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whisper"
    build_tiny_speech(folder, "whisper")
    return folder


def _dumped(model: Path, store: Path, **conf: Any) -> dict[str, Any]:
    options = {"teacher": str(model), "teacher_store": str(store), **conf}
    store.mkdir(parents=True, exist_ok=True)
    teacher = build_speech_teacher(options, stored=False)
    dump_store(store, lambda: RECORDINGS, teacher, CPU)
    return options


@pytest.mark.parametrize(
    ("coding", "tolerance"), [("float16", 1e-3), ("int8", 1 / 127)]
)
@pytest.mark.parametrize("layer", [-1, [0, -1]])
def test_stored_vectors_are_those_of_the_teacher(
    coding: str, tolerance: float, layer: object, model: Path, tmp_path: Path
) -> None:
    options = _dumped(model, tmp_path, store_coding=coding, layer=layer)
    teacher = build_speech_teacher(options)
    assert isinstance(teacher, StoredSpeechTeacher)
    wanted = [RECORDINGS[n] for n in (2, 0, 2)]
    found = teacher.features(wanted, CPU)
    online = build_speech_teacher(options, stored=False)
    for one, other in zip(found, online.features(wanted, CPU), strict=True):
        assert one.dtype == torch.float32
        largest = other.abs().amax(1, keepdim=True)
        assert ((one - other).abs() <= tolerance * largest + 1e-6).all()
    # The name of a recording does not matter, its samples do.
    (again,) = teacher.features([Recording(wanted[0].samples, 16000, "x")], CPU)
    assert torch.equal(again, found[0])
    targets = teacher.targets(wanted, CPU)
    assert targets.sizes == [15, 20, 15]
    assert torch.equal(targets.tensors["vectors"], torch.cat(found))


def test_vectors_by_key_without_samples(model: Path, tmp_path: Path) -> None:
    teacher = build_speech_teacher(_dumped(model, tmp_path))
    assert isinstance(teacher, StoredSpeechTeacher)
    keys = [recording_key(one.samples) for one in RECORDINGS]
    found = teacher.features_by_key([keys[1], bytes(16), keys[0]], CPU)
    assert found[1] is None
    rest = [one for one in found if one is not None]
    for one, n in zip(rest, (1, 0), strict=True):
        assert torch.equal(one, teacher.features([RECORDINGS[n]], CPU)[0])
    assert teacher.features_by_key([bytes(16)], CPU) == [None]
    assert teacher.features_by_key([], CPU) == []


def test_other_audio_is_reported_with_its_causes(model: Path, tmp_path: Path) -> None:
    teacher = build_speech_teacher(_dumped(model, tmp_path))
    louder = Recording(RECORDINGS[0].samples * 1.1, 16000, "utt0")
    with pytest.raises(UserError) as caught:
        teacher.features([RECORDINGS[1], louder], CPU)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"teacher_store {tmp_path}: has no vectors for utt0 (0.40 s)",
        "speed perturbation",
        "python3 -m espnet_cif_hkd.cli.dump_speech_teacher",
    ):
        assert part in message


def test_a_missing_store_is_reported(model: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        options = {"teacher": str(model), "teacher_store": str(folder)}
        teacher = build_speech_teacher(options)
        with pytest.raises(UserError, match=r"dump_speech_teacher"):
            teacher.features(RECORDINGS, CPU)


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ({"pad": "full"}, {}, "made for pad full, but the configuration asks for ex"),
        ({"layer": 1}, {}, "made for layer 1, but the configuration asks for 3"),
        ({"layer": [1, 2]}, {"layer": [1, 3]}, r"made for layer \[1, 2\]"),
        ({"rate": 16000}, {"rate": 8000}, "made for rate 16000"),
        ({"teacher_dtype": "bfloat16"}, {}, "made for teacher_dtype bfloat16"),
        ({"teacher_type": "random"}, {}, "made for type random"),
        (
            {"teacher_type": "random"},
            {"teacher_type": "random", "teacher_conf": {"seed": 2}},
            "made for seed 1",
        ),
    ],
)
def test_a_store_of_other_options_is_refused(
    made: dict[str, Any],
    asked: dict[str, Any],
    message: str,
    model: Path,
    tmp_path: Path,
) -> None:
    options = {**_dumped(model, tmp_path, **made)}
    for name in made:
        del options[name]
    with pytest.raises(UserError, match=message):
        build_speech_teacher({**options, **asked}).open()
    build_speech_teacher({**options, **made}).open()


def test_negative_and_positive_layers_are_the_same(model: Path, tmp_path: Path) -> None:
    options = _dumped(model, tmp_path, layer=[-1, 1])
    build_speech_teacher({**options, "layer": [3, -3]}).open()


def test_a_store_of_other_weights_is_refused(model: Path, tmp_path: Path) -> None:
    options = _dumped(model, tmp_path / "store")
    other = build_tiny_speech(tmp_path / "other", "whisper", seed=1)
    with pytest.raises(UserError, match="made with other weights"):
        build_speech_teacher({**options, "teacher": other}).open()


def test_a_store_works_without_the_model(model: Path, tmp_path: Path) -> None:
    options = _dumped(model, tmp_path / "store")
    options |= {"teacher": "made/up", "teacher_dim": WIDTH, "teacher_revision": "1"}
    # Made from a hub name, whose cache is on another machine.
    header = tmp_path / "store/header.json"
    text = header.read_text().replace(f'"{model}"', '"made/up"')
    header.write_text(text.replace('"revision": null', '"revision": "1"'))
    teacher = build_speech_teacher(options)
    assert teacher.times == FrameTimes(0.0, 0.02)
    found = teacher.features(RECORDINGS, CPU)
    assert [len(one) for one in found] == [20, 35, 15]


def test_workers_open_the_store_again(model: Path, tmp_path: Path) -> None:
    teacher = build_speech_teacher(_dumped(model, tmp_path))
    before = teacher.features(RECORDINGS, CPU)
    copy = pickle.loads(pickle.dumps(teacher))
    after = copy.features(RECORDINGS, CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    online = build_speech_teacher({"teacher": str(model)})
    online.open()
    assert len(pickle.dumps(online)) < 20_000


def test_keys_round_to_16_bits() -> None:
    samples = speech(0.1)
    rounded = np.rint(samples * 32768) / 32768
    assert recording_key(samples) == recording_key(rounded.astype(np.float32))
    assert recording_key(samples) != recording_key(samples[1:])
