"""Borders of Chinese syllables: at the quietest place, in order, from every caller."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_export import trained
from tiny_speech import CHANGES, RATE, noise

from espnet_cif_hkd import Speech2Text
from espnet_cif_hkd.cli.export import main
from espnet_cif_hkd.inference.long_audio import LongAudio
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.inference.quiet import Sound, loudness, quiet_borders
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.results import Frames

HAN = ["<blank>", "<unk>", "<space>", *"你好世界大家早上", "<sos/eos>"]


def quiet_at(*places, seconds=2.0, rate=RATE):
    """Noise with 30 ms of near silence around these times."""
    samples = noise(seconds) if rate == RATE else np.ones(int(rate * seconds))
    for place in places:
        samples[round((place - 0.015) * rate) : round((place + 0.015) * rate)] *= 1e-3
    return samples


def moved(spans, pieces, samples, reach=0.08, begin=0.0):
    return quiet_borders(spans, pieces, Sound(lambda: samples, RATE, begin), reach)


SPANS = [(0.1, 0.5), (0.5, 1.0), (1.0, 1.6)]


def test_a_border_moves_to_the_quiet_place_and_no_further_than_the_reach():
    found = moved(SPANS, "你好吗", quiet_at(0.44, 1.2))
    assert found[0] == (0.1, pytest.approx(0.44, abs=0.003))
    assert found[1][0] == found[0][1] and found[2][1] == 1.6
    assert abs(found[1][1] - 1.0) <= 0.08
    far = moved(SPANS, "你好吗", quiet_at(0.44, 1.2), reach=0.25)
    assert far[1][1] == pytest.approx(1.2, abs=0.003)


@pytest.mark.parametrize(
    ("pieces", "borders"),
    [
        (["你", "好", "吗"], [0, 1]),
        (["你好", "吗", "？"], [0]),
        (["A", "你", "好"], [1]),
        (["", "你", "好"], [1]),
        (["S", "O", " "], []),
        (["か", "な", "你"], []),
    ],
)
def test_only_borders_between_chinese_characters(pieces, borders):
    assert changed(SPANS, pieces) == borders


def test_a_pause_has_no_border():
    assert changed([(0.1, 0.4), (0.5, 1.0), (1.0, 1.6)], "你好吗") == [1]


def changed(spans, pieces):
    """Tokens whose ends move; the audio is read once, and only if one moves."""
    reads = []

    def read():
        reads.append(1)
        return quiet_at(0.44, 1.05)

    sound = Sound(read, RATE)
    for _ in range(2):
        found = quiet_borders(spans, pieces, sound, 0.08)
    ends = [n for n, (a, b) in enumerate(zip(found, spans)) if a[1] != b[1]]
    assert len(reads) == bool(ends)
    return ends


def test_times_of_a_later_passage_and_channels():
    samples = quiet_at(0.44, 1.05)
    later = [(start + 7.0, end + 7.0) for start, end in SPANS]
    found = moved(later, "你好吗", samples, begin=7.0)
    here = moved(SPANS, "你好吗", samples)
    np.testing.assert_allclose(np.array(found) - 7.0, here, atol=1e-9)
    assert moved(SPANS, "你好吗", np.stack([samples, samples], 1)) == here


def test_loudness_of_each_window():
    samples = np.random.default_rng(0).normal(size=500)
    expected = [
        10 * np.log10(np.mean(samples[n : n + 200] ** 2)) for n in range(0, 301, 40)
    ]
    np.testing.assert_allclose(loudness(samples, 200, 40), expected)
    assert not len(loudness(samples[:199], 200, 40))


@given(st.data(), st.integers(0, 12), st.floats(0.001, 0.4), st.integers(0, 8000))
def test_times_stay_in_order(data, n_tokens, reach, n_samples):
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    steps = rng.choice([0.01, 0.03, 0.3], n_tokens + 1)
    edges = np.cumsum(steps).tolist()
    spans = list(itertools.pairwise(edges))
    samples = rng.normal(size=n_samples) * rng.choice([0, 1e-3, 1], n_samples)
    pieces = rng.choice(["你", "好", "a"], n_tokens).tolist()
    found = moved(spans, pieces, samples, reach)
    assert [start for start, _ in found[1:]] == [end for _, end in found[:-1]]
    for (start, end), (before, after) in zip(found, spans):
        assert start < end
        assert abs(start - before) <= reach + 1e-9 and abs(end - after) <= reach + 1e-9
    if found:
        assert (found[0][0], found[-1][1]) == (spans[0][0], spans[-1][1])


@pytest.mark.slow
def test_recogniser_long_audio_and_export_use_the_audio(tmp_path):
    files = trained(tmp_path / "exp", **{**CHANGES, "token_list": HAN})
    samples = noise(2.0)
    recognizer = Recognizer(tmp_path / "exp")
    found = recognizer.recognise(samples).validate()
    frames = recognizer.frames(samples)
    assert isinstance(frames, Frames)
    [without] = recognizer.recognitions([replace(frames, sound=None)])
    assert without.text == found.text and without.tokens != found.tokens
    spans = [(one.start, one.end) for one in without.tokens]
    pieces = [one.text for one in without.tokens]
    expected = moved(spans, pieces, samples, frames.times.stride)
    assert [(one.start, one.end) for one in found.tokens] == expected
    both = Speech2Text(*files, greedy=True, return_times=True)
    assert both(samples).tokens == found.tokens
    long = LongAudio(both).recognise(
        lambda start, end: samples[round(start * RATE) : round(end * RATE)], 2.0
    )
    assert [one.tokens for one in long] == [found.tokens]
    main(["--model", str(tmp_path / "exp"), "--out", str(tmp_path / "out")])
    exported = OnnxRecognizer(tmp_path / "out", threads=1).recognise(samples)
    for one, other in zip(exported.tokens, found.tokens, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=1e-3)
