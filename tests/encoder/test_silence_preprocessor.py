"""Silence at both ends of training utterances."""

import numpy as np
import pytest
from espnet2.tasks import asr
from espnet2.train.preprocessor import CommonPreprocessor
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_cif_hkd import UserError, plugin
from espnet_cif_hkd.encoder.silence import SilencePreprocessor, like_background

RATE = 8000
TOKENS = ["<blank>", "<unk>", "A", "B", "<sos/eos>"]
TEXT = {"token_type": "char", "token_list": TOKENS}


def noise(seconds: float, level: float = 0.01, *channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(0, level, (round(seconds * RATE), *channels)).astype(np.float32)


def tone_in_noise() -> np.ndarray:
    """Two seconds with a loud tone of 1 kHz in the middle one."""
    speech = noise(2.0)
    middle = slice(RATE // 2, 3 * RATE // 2)
    speech[middle] += np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    return speech


def padded(speech: np.ndarray, **conf: float) -> np.ndarray:
    process = SilencePreprocessor(train=True, fs=RATE, **{"silence": 0.5, **conf})
    return process("one", {"speech": speech})["speech"]


def start_of(speech: np.ndarray, found: np.ndarray) -> int:
    """The sample at which ``speech`` begins in ``found``."""
    (at,) = (
        n
        for n in range(len(found) - len(speech) + 1)
        if np.array_equal(found[n : n + len(speech)], speech)
    )
    return at


def test_the_utterance_stays_and_its_ends_become_longer() -> None:
    np.random.seed(0)
    speech = noise(0.3)
    starts, ends = [], []
    for _ in range(60):
        found = padded(speech)
        assert found.dtype == speech.dtype
        starts.append(start_of(speech, found))
        ends.append(len(found) - len(speech) - starts[-1])
    for lengths in (starts, ends):
        assert 0 <= min(lengths) < 0.1 * RATE and 0.4 * RATE < max(lengths) <= RATE / 2
        assert np.mean(lengths) == pytest.approx(RATE / 4, rel=0.25)
    assert abs(np.corrcoef(starts, ends)[0, 1]) < 0.4


def test_validation_and_recognition_get_none() -> None:
    data = {"speech": tone_in_noise(), "text": "ABBA"}
    options = {"train": False, **TEXT}
    wanted = CommonPreprocessor(**options)("one", dict(data))
    found = SilencePreprocessor(fs=RATE, **options)("one", dict(data))
    assert wanted.keys() == found.keys()
    assert all(np.array_equal(wanted[name], found[name]) for name in wanted)


def test_the_text_is_that_of_espnets_preprocessor() -> None:
    process = SilencePreprocessor(train=True, fs=RATE, **TEXT)
    assert process("one", {"text": "ABBA"})["text"].tolist() == [2, 3, 3, 2]


def test_background_sounds_like_the_quietest_windows() -> None:
    np.random.seed(1)
    made = like_background(tone_in_noise(), 4 * RATE, RATE)
    # The quietest 5 % of windows of 25 ms are a little quieter than their mean.
    assert 0.007 < np.sqrt((made**2).mean()) < 0.0101
    spectrum = np.abs(np.fft.rfft(made)) ** 2
    band = 4 * 100
    near = spectrum[4 * 1000 - band : 4 * 1000 + band].mean()
    assert near < 2 * spectrum.mean(), "the tone is in the noise"


def test_background_has_the_colour_of_the_recording() -> None:
    np.random.seed(2)
    dark = np.convolve(noise(2.0), np.ones(16) / 16, "same")
    spectra = [
        np.abs(np.fft.rfft(one)) ** 2
        for one in (dark, like_background(dark, len(dark), RATE))
    ]
    shares = [one[: len(one) // 8].sum() / one.sum() for one in spectra]
    assert shares[0] > 0.7
    assert shares[1] == pytest.approx(shares[0], abs=0.15)


def test_each_channel_has_its_own_background() -> None:
    np.random.seed(3)
    speech = noise(1.0, 0.01, 2) * np.float32([1.0, 10.0])
    made = like_background(speech, RATE, RATE)
    assert made.shape == (RATE, 2)
    levels = np.sqrt((made**2).mean(0))
    assert levels[1] / levels[0] == pytest.approx(10, rel=0.2)
    assert abs(np.corrcoef(made.T)[0, 1]) < 0.1
    assert padded(speech).shape[1:] == (2,)


def test_the_share_of_digital_silence() -> None:
    np.random.seed(4)
    speech = noise(0.5)

    def is_digital() -> bool:
        found = padded(speech, silence_zeros=0.3)
        return not found[: start_of(speech, found)].any()

    assert sum(is_digital() for _ in range(200)) == pytest.approx(60, abs=25)
    found = padded(speech, silence_zeros=1.0)
    at = start_of(speech, found)
    assert at and len(found) > at + len(speech)
    assert not found[:at].any() and not found[at + len(speech) :].any()
    found = padded(speech, silence_zeros=0.0)
    assert found[0] and found[-1]


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 900),
    channels=st.sampled_from([(), (1,), (3,)]),
    wanted=st.integers(0, 700),
    kind=st.sampled_from([np.float32, np.float64]),
    is_silent=st.booleans(),
)
def test_any_recording_has_a_finite_background(
    samples: int, channels: tuple[int, ...], wanted: int, kind: type, is_silent: bool
) -> None:
    speech = np.random.default_rng(samples).normal(0, 1, (samples, *channels))
    speech = (speech * (not is_silent)).astype(kind)
    made = like_background(speech, wanted, RATE)
    assert made.shape == (wanted, *channels)
    assert np.isfinite(made).all()
    if is_silent or samples < RATE // 40:
        assert not made.any()
    else:
        assert np.abs(made).max(initial=0) < 10


def test_a_seed_repeats_the_silence() -> None:
    speech, found = noise(0.4), []
    for _ in range(2):
        np.random.seed(5)
        found.append(padded(speech))
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"fs": 0}, "fs is 0; preprocessor: silence needs the sampling rate"),
        ({"silence": 0}, "silence 0 must be seconds above 0"),
        ({"silence": float("nan")}, "silence nan must be"),
        ({"silence_zeros": 1.5}, "silence_zeros 1.5 must be from 0 to 1"),
    ],
)
def test_wrong_options_are_one_line(conf: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SilencePreprocessor(train=True, **{"fs": RATE, **conf})
    assert "\n" not in str(caught.value)


def test_espnets_task_chooses_it_by_name() -> None:
    plugin.register()
    words = [*("--output_dir", "x"), *("--token_list", "x", "--token_type", "char")]
    words += ["--preprocessor", "silence"]
    for word in (f"fs={RATE}", "silence=0.2"):
        words += ["--preprocessor_conf", word]
    args = asr.ASRTask.get_parser().parse_args(words)
    args.token_list = TOKENS
    made = [asr.ASRTask.build_preprocess_fn(args, train) for train in (True, False)]
    assert all(isinstance(one, SilencePreprocessor) for one in made)
    assert made[0].silence == 0.2
    assert len(made[1]("one", {"speech": noise(0.3)})["speech"]) == len(noise(0.3))
