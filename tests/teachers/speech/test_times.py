"""Centres of teacher frames, compared with what frames react to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_speech_teachers import build_tiny_speech, speech

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.teachers.speech.hf import HFSpeechTeacher
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher

SAMPLE = 1 / 16000


def _teacher(folder: Path, kind: str, **changes: object) -> HFSpeechTeacher:
    name = build_tiny_speech(folder, kind, **changes)
    teacher = build_speech_teacher({"teacher": name})
    assert isinstance(teacher, HFSpeechTeacher)
    return teacher


def _seen(outputs: torch.Tensor, inputs: torch.Tensor, frame: int) -> tuple[int, int]:
    """First and last element of ``inputs`` on which a frame (D,) depends."""
    (gradient,) = torch.autograd.grad(outputs[frame].sum(), inputs, retain_graph=True)
    places = gradient.reshape(-1, inputs.size(-1)).abs().sum(0).nonzero().flatten()
    return int(places[0]), int(places[-1])


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
@pytest.mark.parametrize(
    "geometry",
    [{}, {"conv_kernel": (5, 3), "conv_stride": (4, 2), "conv_dim": [8, 8]}],
)
def test_frames_of_the_wav2vec_family(
    kind: str, geometry: dict[str, object], tmp_path: Path
) -> None:
    # With layer normalisation no frame sees the complete recording.
    teacher = _teacher(tmp_path, kind, feat_extract_norm="layer", **geometry)
    if not geometry:
        assert teacher.times == FrameTimes(0.0125, 0.02)
    model = teacher.open().model
    wave = torch.from_numpy(speech(0.2))[None].requires_grad_()
    frames = model.feature_extractor(wave)[0].T  # before positions and attention
    for frame in (0, 3, len(frames) - 1):
        first, last = _seen(frames, wave, frame)
        centre = teacher.times.offset + frame * teacher.times.stride
        assert (first + last) / 2 * SAMPLE == pytest.approx(centre, abs=SAMPLE)
    # The shortest recording has one frame, and one sample less has none.
    shortest = teacher.open().shortest
    assert model.feature_extractor(wave[:, :shortest]).size(2) == 1
    with pytest.raises(RuntimeError):
        model.feature_extractor(wave[:, : shortest - 1])


def test_frames_of_whisper(tmp_path: Path) -> None:
    teacher = _teacher(tmp_path, "whisper")
    assert teacher.times == FrameTimes(0.0, 0.02)
    encoder = teacher.open()
    (window,) = encoder.windows(speech(1.0))
    spectra = window.inputs[None].requires_grad_()
    (frames,) = encoder.hidden_states(spectra)[0]
    for frame in (1, 10, 48):
        first, last = _seen(frames, spectra, frame)
        assert (first + last) / 2 == 2 * frame
    # A click lies in the middle of a spectrum if its neighbours are equal.
    for spectrum in (20, 41):
        seconds = 0.0 + spectrum / 2 * teacher.times.stride
        before, at, after = _loudness(encoder, seconds)[spectrum - 1 : spectrum + 2]
        assert at > before + 0.1 and before == pytest.approx(after, abs=0.02)
        before, _, after = _loudness(encoder, seconds + 0.002)[
            spectrum - 1 : spectrum + 2
        ]
        assert after > before + 0.1


def _loudness(encoder: object, seconds: float) -> np.ndarray:
    """Mean over the bins of each spectrum of a click, (T,)."""
    samples = np.full(16000, 1e-4, dtype=np.float32)
    samples[round(seconds * 16000)] = 1
    (window,) = encoder.windows(samples)  # type: ignore[attr-defined]
    return window.inputs.mean(0).numpy()


def test_frames_of_w2v_bert(tmp_path: Path) -> None:
    teacher = _teacher(tmp_path, "wav2vec2-bert")
    assert teacher.times == FrameTimes(0.0175, 0.02)
    encoder = teacher.open()

    def halves(frame: int, seconds: float) -> tuple[float, float]:
        samples = speech(0.5) * 1e-3
        samples[round(seconds * 16000)] = 1
        (window,) = encoder.windows(samples)
        first, second = window.inputs[frame].view(2, 80).mean(1).tolist()
        return first, second

    # A click at the centre of a frame is equally loud in its two spectra.
    for frame in (3, 10):
        centre = teacher.times.offset + frame * teacher.times.stride
        first, second = halves(frame, centre)
        assert first == pytest.approx(second, rel=0.03) and first > 1
        early, late = halves(frame, centre - 0.005)
        assert early > late + 0.2
        early, late = halves(frame, centre + 0.005)
        assert late > early + 0.2
