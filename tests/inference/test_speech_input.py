"""Audio of a wrong type, shape or value: one line, or the obvious result."""

import numpy as np
import pytest
import torch
from tiny_model import FEATURES, tiny_model
from tiny_speech import CHANGES, model_files, noise

from espnet_cif_hkd import Speech2Text, UserError

WAYS = {"greedy": {"greedy": True}, "beam": {"beam_size": 2, "ctc_weight": 0.0}}


def recogniser(folder, way, **changes):
    return Speech2Text(*model_files(folder, **changes), **WAYS[way])


@pytest.fixture(scope="module", params=WAYS)
def speech2text(request, tmp_path_factory):
    return recogniser(tmp_path_factory.mktemp("exp"), request.param, **CHANGES)


def with_value(value, at=500):
    samples = noise(1.0)
    samples[at] = value
    return samples


BAD = {
    "NaN": (with_value(np.nan), "1 of 8000 values are NaN or infinite"),
    "infinity": (with_value(-np.inf), "first at index 500"),
    "stereo": (np.stack([noise(1.0)] * 2, axis=1), r"shape \(8000, 2\): give one chan"),
    "stereo, channels first": (torch.zeros(2, 8000), r"shape \(2, 8000\): give one"),
    "three dimensions": (np.zeros((1, 1, 8000)), r"shape \(1, 1, 8000\)"),
    "a number": (np.array(0.5), r"shape \(\)"),
    "int32": (np.zeros(8000, dtype=np.int32), "dtype int32: give float samples"),
    "bool": (torch.zeros(8000, dtype=torch.bool), r"dtype torch.bool: give float"),
    "complex": (np.zeros(8000, dtype=complex), "dtype complex128: give float"),
    "text": (np.array(["a"]), "dtype <U1: give float"),
    "a path": ("a.wav", "is a str: give a numpy array or a tensor"),
    "nothing": (None, "is a NoneType"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_audio_is_one_line_that_names_it(speech2text, name):
    speech, message = BAD[name]
    with pytest.raises(UserError, match=f"^speech.*{message}") as error:
        speech2text(speech)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=rf"^speech\[2\].*{message}"):
        speech2text([noise(1.0), noise(0.5), speech])


def test_obvious_results(speech2text):
    expected = speech2text(noise(1.0))[0][:3]
    pcm = np.round(noise(1.0) * 32768).astype(np.int16)
    exact = speech2text(pcm.astype(np.float32) / 32768)[0][:3]
    for speech, text in (
        (torch.from_numpy(noise(1.0)), expected),
        (noise(1.0).astype(np.float64), expected),
        (noise(1.0)[None], expected),
        (noise(1.0)[:, None], expected),
        (pcm, exact),
    ):
        assert speech2text(speech)[0][:3] == text
    assert speech2text([]) == []
    assert speech2text(()) == []


def test_no_samples_is_an_empty_hypothesis(speech2text, caplog):
    empty = np.zeros(0, dtype=np.float32)
    assert speech2text(empty)[0][:3] == ("", [], [])
    assert "the hypothesis is empty" in caplog.text
    found = speech2text([noise(1.0), empty, noise(0.01), noise(1.0)])
    assert [one[0][0] == "" for one in found][1:3] == [True, True]
    assert found[0][0][:3] == found[3][0][:3] == speech2text(noise(1.0))[0][:3]


@pytest.mark.parametrize("way", WAYS)
def test_features_without_frontend(tmp_path, way):
    speech2text = recogniser(tmp_path, way)
    features = torch.randn(40, FEATURES)
    assert speech2text(features)[0][0] is not None
    assert speech2text([features])[0][0][:3] == speech2text(features)[0][:3]
    with pytest.raises(UserError, match=r"no frontend, give features"):
        speech2text(noise(1.0))


def test_encoder_output_that_is_not_finite_is_refused():
    """Audio that is right, parameters that are not; also through ESPnet's commands."""
    decoder = tiny_model().eval().decoder
    hs = torch.randn(2, 9, 8)
    hs[1, 4, 2] = torch.nan
    with pytest.raises(UserError, match=r"utterance 1 of the batch.*not finite"):
        decoder.batch_init_state(hs, torch.tensor([9, 9]))
    decoder.batch_init_state(hs, torch.tensor([9, 4]))  # only in padding
