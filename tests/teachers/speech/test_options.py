"""Options of speech teachers, and errors: one line that says how to fix it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bert import build_tiny_bert
from tiny_speech_teachers import LAYERS, WIDTH, build_tiny_speech, speech, tiny_model

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.speech.hf import HFSpeechTeacher
from espnet_cif_hkd.teachers.speech.registry import (
    build_speech_teacher,
    speech_teacher_choices,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_tiny_speech(tmp_path_factory.mktemp("whisper"), "whisper")


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_tiny_speech(tmp_path_factory.mktemp("hubert"), "hubert")


@pytest.fixture
def copy(hubert: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(hubert, tmp_path / "copy"))


def _one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"teacher": None}, "teacher is not set"),
        ({"teacher": "./nowhere"}, "./nowhere: this folder does not exist"),
        ({"teacher": "pkg://no-such-dist/x"}, "'no-such-dist' is not installed"),
        (
            {"teacher_type": "bert"},
            "'bert'; use one of hf, random, moonshine",
        ),
        ({"teacher_conf": {"seed": 1}}, "teacher_type hf has no such options"),
        ({"layer": LAYERS + 1}, f"there is no layer {LAYERS + 1}; it has 0 "),
        ({"layer": -LAYERS - 2}, f"there is no layer {-LAYERS - 2}"),
        ({"layer": [1, 9]}, "there is no layer 9"),
        ({"layer": 1.5}, "layer is 1.5"),
        ({"layer": []}, r"layer is \[\]"),
        ({"layer": [True]}, r"layer is \[True\]"),
        ({"teacher_dim": WIDTH + 1}, f"set it to {WIDTH} or leave it out"),
        ({"teacher_dim": "wide"}, "teacher_dim is 'wide'"),
        ({"rate": 16}, "rate is 16; .* in Hz"),
        ({"rate": "16k"}, "rate is '16k'"),
        ({"rate": 11025.5}, "rate is 11025.5"),
        *(
            ({"pad": pad}, f"pad: {pad!r} is unknown; use exact or full or seconds")
            for pad in ("some", -1, 30, "0", "nan", "inf", True, "seconds of silence")
        ),
        ({"pad": 0.5}, "pad: 0.5 is only for Whisper"),
        ({"pad": "full"}, "pad: full is only for Whisper"),
        ({"teacher_dtype": "int8"}, "teacher_dtype: 'int8' is unknown"),
        ({"store_coding": "int4"}, "store_coding: 'int4' is unknown"),
        (
            {"teacher_type": "random", "teacher_conf": {"variance": 1}},
            "the random speech teacher has no option 'variance'",
        ),
        (
            {"teacher_type": "random", "teacher_conf": {"seed": -1}},
            "teacher_conf.seed is -1",
        ),
    ],
)
def test_wrong_options_are_refused_when_the_teacher_is_built(
    conf: dict[str, Any], message: str, hubert: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_speech_teacher({"teacher": hubert, **conf})
    _one_line(caught)


def test_widths_of_layers_add_up(hubert: str) -> None:
    one = build_speech_teacher({"teacher": hubert, "teacher_dim": WIDTH})
    assert (one.payload.kind, one.payload.width) == ("frames", WIDTH)
    two = build_speech_teacher(
        {"teacher": hubert, "layer": [1, -1], "store_coding": "int8"}
    )
    assert (two.payload.width, two.payload.coding) == (2 * WIDTH, "int8")
    assert two.describe()["layer"] == [1, LAYERS]


def test_a_hub_name_needs_the_width_and_a_revision() -> None:
    with pytest.raises(UserError, match=r"config\.json is not on this machine; set"):
        build_speech_teacher({"teacher": "made/up"})
    teacher = build_speech_teacher({"teacher": "made/up", "teacher_dim": 8})
    assert teacher.payload.width == 8
    assert teacher.fingerprint() is None
    message = r"no such folder here.* set teacher_revision to a commit"
    with pytest.raises(UserError, match=message):
        teacher.open()


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    folder = build_tiny_bert(tmp_path)
    with pytest.raises(UserError, match="a bert model, which is no speech enc") as e:
        build_speech_teacher({"teacher": folder})
    assert "whisper, wav2vec2, hubert" in _one_line(e)


def test_weights_of_another_model_are_refused(copy: Path, tmp_path: Path) -> None:
    build_tiny_bert(tmp_path / "bert")
    shutil.copy(tmp_path / "bert/model.safetensors", copy)
    with pytest.raises(UserError, match=r"lacks .* belongs to another model") as caught:
        build_speech_teacher({"teacher": str(copy)}).open()
    _one_line(caught)


def test_weights_of_another_size_are_refused(copy: Path, tmp_path: Path) -> None:
    build_tiny_speech(tmp_path / "wide", "hubert", hidden_size=20)
    shutil.copy(tmp_path / "wide/model.safetensors", copy)
    with pytest.raises(UserError, match="cannot open its weights") as caught:
        build_speech_teacher({"teacher": str(copy)}).open()
    _one_line(caught)


def test_missing_weights_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = copy / "model.safetensors"
    weights = load_file(path)
    gone = next(name for name in weights if "layers.1.feed_forward" in name)
    del weights[gone]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"lacks 1 of them, e.g. .*{gone}"):
        build_speech_teacher({"teacher": str(copy)}).open()


def test_a_missing_mask_vector_is_no_error(tmp_path: Path, copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = copy / "model.safetensors"
    weights = load_file(path)
    del weights["masked_spec_embed"]  # only a pre-training reads it
    save_file(weights, path, metadata={"format": "pt"})
    build_speech_teacher({"teacher": str(copy)}).open()


def test_other_formats_than_safetensors_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no weights instead of model\.safet"):
        build_speech_teacher({"teacher": str(copy)}).open()
    torch.save(tiny_model("hubert").state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="weights in another format") as caught:
        build_speech_teacher({"teacher": str(copy)}).open()
    assert "save_pretrained" in _one_line(caught)


def test_damaged_files_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot open its weights") as caught:
        build_speech_teacher({"teacher": str(copy)}).open()
    _one_line(caught)
    (copy / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot open its config\.json") as caught:
        build_speech_teacher({"teacher": str(copy)})
    _one_line(caught)


def test_the_extractor_of_another_model_is_refused(copy: Path, whisper: str) -> None:
    shutil.copy(f"{whisper}/preprocessor_config.json", copy)
    with pytest.raises(UserError, match="is for WhisperFeatureExtractor, but a hub"):
        build_speech_teacher({"teacher": str(copy)}).open()


def _refused(folder: str, recording: Recording, **conf: object) -> str:
    teacher = build_speech_teacher({"teacher": folder, **conf})
    good = Recording(speech(0.3, rate=recording.rate), recording.rate, "good")
    with pytest.raises(UserError) as caught:
        teacher.features([good, recording], CPU)
    return _one_line(caught)


@pytest.mark.parametrize("kind", ["whisper", "hubert", "wav2vec2-bert"])
def test_recordings_shorter_than_a_frame_are_refused(kind: str, tmp_path: Path) -> None:
    folder = build_tiny_speech(tmp_path, kind)
    shortest = {"whisper": 320, "hubert": 400, "wav2vec2-bert": 560}[kind]
    teacher = build_speech_teacher({"teacher": folder})
    exactly = Recording(speech(shortest / 16000), 16000)
    assert len(teacher.features([exactly], CPU)[0]) == 1
    for n in (0, shortest - 1):
        message = _refused(folder, Recording(exactly.samples[:n], 16000, "utt7"))
        assert message.startswith("utt7 (0.") and "shorter than one frame" in message
        assert f"needs {shortest / 16000:.4f} s" in message


def test_recordings_of_another_rate_are_refused(hubert: str) -> None:
    teacher = build_speech_teacher({"teacher": hubert, "rate": 11025})
    with pytest.raises(UserError, match="utt7 has 8000 Hz, but rate is 11025; set ra"):
        teacher.features([Recording(speech(0.3), 8000, "utt7")], CPU)


def test_several_channels_are_refused(hubert: str) -> None:
    stereo = np.stack([speech(0.3), speech(0.3)], 1)
    assert "one channel" in _refused(hubert, Recording(stereo, 16000, "utt7"))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad: float, hubert: str) -> None:
    samples = speech(0.3)
    samples[7] = bad
    message = _refused(hubert, Recording(samples, 16000, "utt7"))
    assert hubert in message and "utt7 (0.30 s)" in message and "NaN" in message


def test_classes_of_users_are_built(
    hubert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(HFSpeechTeacher):
        kind = "mine"

    monkeypatch.setitem(speech_teacher_choices.classes, "mine", Mine)
    teacher = build_speech_teacher({"teacher": hubert, "teacher_type": "mine"})
    assert isinstance(teacher, Mine)
    monkeypatch.setitem(speech_teacher_choices.classes, "no", "json:JSONDecoder")
    with pytest.raises(UserError, match=r"no subclass of .*SpeechTeacher"):
        build_speech_teacher({"teacher": hubert, "teacher_type": "no"})


def test_the_random_teacher_has_the_architecture_and_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    samples = Recording(speech(0.3), 16000)

    def vectors(seed: int) -> tuple[SpeechTeacher, torch.Tensor]:
        conf = {"teacher_type": "random", "teacher_conf": {"seed": seed}}
        teacher = build_speech_teacher({"teacher": str(copy), **conf})
        before = torch.get_rng_state()
        teacher.open()
        assert torch.equal(torch.get_rng_state(), before)
        return teacher, teacher.features([samples], CPU)[0]

    one, found = vectors(1)
    torch.manual_seed(0)
    same, again = vectors(1)
    other, different = vectors(2)
    assert found.shape == (14, WIDTH) and torch.equal(found, again)
    assert (found - different).abs().max() > 1e-2
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.describe()["seed"] == 1 and one.describe()["type"] == "random"


def test_the_fingerprint_is_that_of_the_content(copy: Path, tmp_path: Path) -> None:
    first = build_speech_teacher({"teacher": str(copy)}).fingerprint()
    moved = copy.rename(tmp_path / "moved")
    assert build_speech_teacher({"teacher": str(moved)}).fingerprint() == first
    path = moved / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_normalize": False}))
    assert build_speech_teacher({"teacher": str(moved)}).fingerprint() != first
