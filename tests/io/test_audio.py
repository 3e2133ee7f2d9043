"""Recordings whose scale or channels are not what a training expects."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.audio import (
    Sound,
    check_channels,
    read_header,
    read_utterance,
    select_channel,
)

RATE = 8000
NOISE = np.random.default_rng(0).uniform(-0.9, 0.9, 4000)


def store(tmp_path: Path, samples: np.ndarray, subtype: str = "FLOAT") -> str:
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype=subtype)
    return str(path)


@pytest.mark.parametrize(
    ("samples", "fix"),
    [
        (np.rint(NOISE * 32767), "divide its samples by 32768"),
        # A quiet recording, and one that is mostly silence.
        (np.rint(NOISE * 20), "divide its samples by 32768"),
        (np.where(np.arange(4000) < 30, np.rint(NOISE * 9), 0), "by 32768"),
        # Integers that were resampled, or have 32 bits.
        (NOISE * 32767 + 0.25, "divide its samples by 32768"),
        (np.rint(NOISE * 2**31), "divide its samples by 2147483648"),
        (NOISE * 3, "reduce its level"),
    ],
)
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("pipe", [False, True])
def test_another_scale_is_refused_by_name(
    tmp_path: Path, samples: np.ndarray, fix: str, subtype: str, pipe: bool
) -> None:
    entry = store(tmp_path, samples, subtype)
    entry = f"cat {entry} |" if pipe else entry
    with pytest.raises(UserError, match=rf"audio of utt1: .*outside -1 to 1.*{fix}"):
        read_utterance("utt1", entry)


def test_a_few_samples_beyond_full_scale_are_counted(tmp_path: Path) -> None:
    samples = NOISE.copy()
    samples[[5, 500]] = 1.25, -1.5
    assert read_utterance("utt1", store(tmp_path, samples)).clipped == 2


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_full_scale_is_no_clipping(tmp_path: Path, subtype: str) -> None:
    samples = np.sign(NOISE)
    assert read_utterance("utt1", store(tmp_path, samples, subtype)).clipped == 0


def test_infinity_is_refused(tmp_path: Path) -> None:
    samples = NOISE.copy()
    samples[7] = np.inf
    with pytest.raises(UserError, match="utt1 contains NaN or infinity"):
        read_utterance("utt1", store(tmp_path, samples))


def test_one_channel_or_the_mean() -> None:
    left, right = NOISE[:10], NOISE[10:20]
    stereo = Sound(np.stack([left, right], axis=1), RATE)
    assert stereo.channels == 2 and stereo.seconds == 10 / RATE
    np.testing.assert_array_equal(select_channel(stereo, "0", "r").samples, left)
    np.testing.assert_array_equal(select_channel(stereo, "1", "r").samples, right)
    mean = select_channel(stereo, "mean", "r").samples
    np.testing.assert_allclose(mean, (left + right) / 2)
    assert select_channel(stereo, "", "r") is stereo
    mono = Sound(left, RATE)
    assert select_channel(mono, "1", "r") is mono
    with pytest.raises(UserError, match="r: no channel 2: the 2 channels"):
        select_channel(stereo, "2", "r")


def test_the_rarer_number_of_channels_is_named() -> None:
    check_channels({"a": 2, "b": 2}, Path("data/x"))
    check_channels({}, Path("data/x"))
    with pytest.raises(UserError, match=r"data/x: b with 2 channels among .* with 1: "):
        check_channels({"a": 1, "b": 2, "c": 1}, Path("data/x"))


def test_headers(tmp_path: Path) -> None:
    entry = store(tmp_path, np.stack([NOISE, NOISE], axis=1))
    header = read_header("utt1", entry)
    assert header is not None
    assert (header.channels, header.seconds, header.rate) == (2, 0.5, RATE)
    faster = read_header("utt1", f"sox -t wav {entry} -t wav - speed 2.0 |")
    assert faster is not None and (faster.channels, faster.seconds) == (2, 0.25)
    assert read_header("utt1", f"cat {entry} |") is None
    with pytest.raises(UserError, match="audio of utt1 cannot be read"):
        read_header("utt1", "absent.wav")
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(UserError, match="audio of utt1 cannot be read"):
        read_header("utt1", str(tmp_path / "b.wav"))
