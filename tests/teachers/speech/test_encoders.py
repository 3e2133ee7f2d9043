"""Vectors of speech models: equal to transformers, and equal in every batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_speech_teachers import (
    KINDS,
    LAYERS,
    POSITIONS,
    WIDTH,
    build_tiny_speech,
    speech,
)
from torch import Tensor

from espnet_cif_hkd.teachers.speech import hf
from espnet_cif_hkd.teachers.speech.base import Recording
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher

CPU = torch.device("cpu")
HOP = 320  # samples of a frame, for all kinds


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {kind: build_tiny_speech(root / kind, kind) for kind in KINDS}


def _record(samples: np.ndarray, name: str = "u", rate: int = 16000) -> Recording:
    return Recording(samples, rate, name)


def _vectors(folder: str, samples: np.ndarray, **conf: object) -> Tensor:
    teacher = build_speech_teacher({"teacher": folder, **conf})
    (found,) = teacher.features([_record(samples)], CPU)
    return found


def _close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pad"), [*((kind, "exact") for kind in KINDS), ("whisper", "full")]
)
def test_vectors_do_not_depend_on_the_batch(
    kind: str, pad: str, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = build_speech_teacher({"teacher": folders[kind], "pad": pad})
    # Two of equal length run together, as on a GPU; two are longer than a window.
    seconds = [0.5, 0.9, 0.5, 2.3, 0.31, 2.3]
    batch = [_record(speech(s, n) * (n + 1)) for n, s in enumerate(seconds)]
    alone = [teacher.features([one], CPU)[0] for one in batch]
    sizes: list[int] = []
    monkeypatch.setitem(hf._RUN_VALUES, "cpu", 1 << 30)
    encoder = teacher.open()
    encoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    together = teacher.features(batch, CPU)
    assert max(sizes) >= 2
    assert [len(one) for one in together] == [len(one) for one in alone]
    for one, other in zip(alone, together, strict=True):
        _close(one, other)
    # A test that cannot see a difference proves nothing.
    assert (together[0] - together[2]).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stable"),
    [
        *((kind, False) for kind in KINDS if kind != "whisper"),
        *((kind, True) for kind in ("wav2vec2", "hubert", "wavlm")),
    ],
)
def test_layers_equal_those_of_transformers(
    kind: str, stable: bool, tmp_path: Path
) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    changes = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    folder = build_tiny_speech(tmp_path, kind, **(changes if stable else {}))
    samples = speech(0.7)
    model = AutoModel.from_pretrained(folder).eval()
    inputs = AutoFeatureExtractor.from_pretrained(folder)(
        samples, sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**inputs, output_hidden_states=True)
    for layer in range(LAYERS):
        found = _vectors(folder, samples, layer=layer)
        _close(found, expected.hidden_states[layer][0])
    last = _vectors(folder, samples, layer=-1)
    assert last.shape[1] == WIDTH
    _close(last, expected.last_hidden_state[0])


def test_w2v_bert_drops_half_a_frame(folders: dict[str, str]) -> None:
    # 2 n + 1 spectra of 25 ms, 10 ms apart, are n frames of two of them.
    for spectra in (6, 7):
        samples = speech((400 + (spectra - 1) * 160) / 16000)
        assert len(_vectors(folders["wav2vec2-bert"], samples)) == 3


@pytest.mark.slow
def test_whisper_equals_transformers_on_its_window(folders: dict[str, str]) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    folder, samples = folders["whisper"], speech(POSITIONS * HOP / 16000)
    model = WhisperModel.from_pretrained(folder).eval().float()
    mel = WhisperFeatureExtractor.from_pretrained(folder)(
        samples, sampling_rate=16000, padding="do_not_pad", return_tensors="pt"
    )["input_features"]
    with torch.no_grad():
        expected = model.encoder(mel, output_hidden_states=True)
    for layer in range(LAYERS):
        for pad in ("exact", "full"):
            found = _vectors(folder, samples, layer=layer, pad=pad)
            _close(found, expected.hidden_states[layer][0])
    _close(_vectors(folder, samples), expected.last_hidden_state[0])


def test_whisper_full_is_the_padded_window(folders: dict[str, str]) -> None:
    folder, samples = folders["whisper"], speech(0.43)
    padded = np.pad(samples, (0, POSITIONS * HOP - len(samples)))
    found = _vectors(folder, samples, pad="full")
    assert len(found) == 22  # ceil(floor(0.43 s / 10 ms) / 2)
    _close(found, _vectors(folder, padded)[:22])
    exact = _vectors(folder, samples)
    assert len(exact) == 22
    assert (exact - found).abs().max() > 1e-2


@pytest.mark.parametrize(("pad", "silence"), [(0.25, 4000), ("0.1", 1600), (29, 9120)])
def test_whisper_pads_with_seconds_of_silence(
    pad: float | str, silence: int, folders: dict[str, str]
) -> None:
    folder, samples = folders["whisper"], speech(0.43)
    found = _vectors(folder, samples, pad=pad)
    assert len(found) == 22
    assert POSITIONS * HOP - len(samples) == 9120  # no more than the window
    _close(found, _vectors(folder, np.pad(samples, (0, silence)))[:22])


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.02, 0.999, 1.0, 1.01, 1.84, 1.86, 4.7])
@pytest.mark.parametrize("pad", ["exact", "full", "0.1"])
def test_whisper_reads_long_recordings_in_windows(
    seconds: float, pad: str, folders: dict[str, str]
) -> None:
    samples = speech(seconds)
    found = _vectors(folders["whisper"], samples, pad=pad)
    n_frames = -(-(len(samples) // 160) // 2)
    assert len(found) == n_frames
    if n_frames <= POSITIONS:
        return
    # Window n begins at frame 42 n; 4 frames at each inner edge are dropped.
    margin = POSITIONS // 12
    step = POSITIONS - 2 * margin
    for n in range(1, 1 + (n_frames - POSITIONS - 1) // step):
        part = samples[n * step * HOP :][: POSITIONS * HOP]
        alone = _vectors(folders["whisper"], part)
        begin = n * step
        _close(
            found[begin + margin : begin + POSITIONS - margin],
            alone[margin : POSITIONS - margin],
        )


@pytest.mark.slow
def test_several_layers_are_concatenated(folders: dict[str, str]) -> None:
    for kind in KINDS:
        samples = speech(0.4)
        both = _vectors(folders[kind], samples, layer=[0, -1])
        parts = [_vectors(folders[kind], samples, layer=n) for n in (0, LAYERS)]
        assert torch.equal(both, torch.cat(parts, 1))


def test_another_rate_is_resampled(folders: dict[str, str]) -> None:
    import soxr

    low = speech(0.6, rate=11025)
    teacher = build_speech_teacher({"teacher": folders["hubert"], "rate": 11025})
    (found,) = teacher.features([_record(low, rate=11025)], CPU)
    (again,) = teacher.features([_record(low.copy(), rate=11025)], CPU)
    assert torch.equal(found, again)
    high = soxr.resample(low, 11025, 16000, quality="HQ")
    _close(found, _vectors(folders["hubert"], high))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_gives_float32_vectors(kind: str, folders: dict[str, str]) -> None:
    samples = speech(0.4)
    coarse = _vectors(folders[kind], samples, teacher_dtype="bfloat16")
    fine = _vectors(folders[kind], samples)
    assert coarse.dtype == fine.dtype == torch.float32
    assert 0 < (coarse - fine).abs().mean() < 0.1 * fine.abs().mean()


def test_autocast_changes_nothing(folders: dict[str, str]) -> None:
    fine = _vectors(folders["wavlm"], speech(0.4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(_vectors(folders["wavlm"], speech(0.4)), fine)


@pytest.mark.parametrize("kind", ["whisper", "hubert"])
def test_the_student_can_be_trained_on_the_vectors(
    kind: str, folders: dict[str, str]
) -> None:
    found = _vectors(folders[kind], speech(0.4))
    student = torch.zeros(WIDTH, requires_grad=True)
    ((found + student) ** 2).mean().backward()
    assert student.grad is not None and not found.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_the_usual_extractor_replaces_a_missing_file(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_tiny_speech(tmp_path, kind, feat_extract_norm="layer")
    expected = _vectors(folder, speech(0.4))
    (tmp_path / "preprocessor_config.json").unlink()
    _close(_vectors(folder, speech(0.4)), expected)
    assert f"{tmp_path} has no preprocessor_config.json" in caplog.text


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-bert"])
def test_an_adapter_is_left_out(kind: str, tmp_path: Path) -> None:
    # It would halve the number of frames, or more.
    folder = build_tiny_speech(tmp_path, kind, add_adapter=True, output_hidden_size=8)
    found = _vectors(folder, speech(0.4))
    assert found.shape == (19, WIDTH)
    _close(_vectors(folder, speech(0.4), layer=LAYERS), found)
