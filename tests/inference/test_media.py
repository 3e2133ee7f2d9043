"""Audio files of any format, rate and number of channels, and those that are faulty."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.media import open_audio, read_audio

RATE = 16000


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * hertz * times)


def store(folder: Path, samples: np.ndarray, name: str = "a.wav", **options) -> Path:
    path = folder / name
    options = {"samplerate": RATE, **options}
    soundfile.write(path, samples, **options)
    return path


@pytest.mark.parametrize(
    ("name", "subtype", "most"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_U8", 1e-2),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.flac", "PCM_24", 1e-6),
        ("a.ogg", "VORBIS", 0.1),
        ("a.mp3", "MPEG_LAYER_III", 0.1),
        ("a.aiff", "PCM_16", 1e-4),
    ],
)
def test_formats(tmp_path: Path, name: str, subtype: str, most: float) -> None:
    wave = tone()
    samples, notes = read_audio(store(tmp_path, wave, name, subtype=subtype), RATE)

    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) == len(wave) and notes == []
    inner = slice(2000, -2000)
    np.testing.assert_allclose(samples[inner], wave[inner], atol=most)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_other_rates(tmp_path: Path, rate: int) -> None:
    path = store(tmp_path, tone(rate=rate), samplerate=rate)
    samples, notes = read_audio(path, RATE)

    assert abs(len(samples) - 8000) <= 1
    inner = slice(800, 7200)
    np.testing.assert_allclose(samples[inner], tone()[inner], atol=1e-3)
    assert notes[0] == f"{rate} Hz is resampled to {RATE} Hz"
    assert len(notes) == 1 + (rate < RATE)
    assert rate > RATE or f"no frequencies above {rate // 2} Hz" in notes[1]


def test_mean_or_one_of_the_channels(tmp_path: Path) -> None:
    left, right = tone(), tone(hertz=300.0) / 2
    path = store(tmp_path, np.stack([left, right], axis=1), subtype="FLOAT")

    samples, notes = read_audio(path, RATE)
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)
    assert notes == ["2 channels: their mean is used"]
    samples, notes = read_audio(path, RATE, "1")
    np.testing.assert_allclose(samples, right, atol=1e-6)
    assert notes == ["2 channels: channel 1 is used"]
    with pytest.raises(UserError, match=r"a\.wav: no channel 2: its 2 channels"):
        read_audio(path, RATE, "2")
    with pytest.raises(UserError, match="channel 'left': write mean"):
        read_audio(path, RATE, "left")


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_blocks_and_passages_are_the_complete_audio(tmp_path: Path, rate: int) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * rate)
    path = store(tmp_path, wave, samplerate=rate, subtype="FLOAT")
    complete, _ = read_audio(path, RATE)
    with open_audio(path, RATE) as audio:
        assert audio.duration == 2.0
        for seconds in (0.01, 0.3, 5.0):
            joined = np.concatenate(list(audio.blocks(seconds)))
            np.testing.assert_allclose(joined, complete, atol=1e-5)
        for start, end in ((0.0, 0.5), (0.123, 0.777), (1.5, 2.0), (0.5, 0.5001)):
            passage = audio.read(start, end)
            assert len(passage) == round(end * RATE) - round(start * RATE)
            expected = complete[round(start * RATE) : round(end * RATE)]
            np.testing.assert_allclose(passage, expected, atol=1e-3)
        assert len(audio.read(1.9, 9.0)) == round(0.1 * RATE)
        assert len(audio.read(3.0, 4.0)) == len(audio.read(1.0, 1.0)) == 0


def test_doubts_are_noted(tmp_path: Path) -> None:
    wave = tone()
    silent = store(tmp_path, np.zeros(4000))
    assert read_audio(silent, RATE)[1] == ["is silent"]
    opposite = store(tmp_path, np.stack([wave, -0.99 * wave], axis=1))
    assert any("cancel each other" in one for one in read_audio(opposite, RATE)[1])
    assert len(read_audio(opposite, RATE, "0")[1]) == 1
    loud = store(tmp_path, wave * 3, subtype="FLOAT")
    assert read_audio(loud, RATE)[1] == ["some samples exceed full scale"]


def damaged(folder: Path, kind: str) -> Path:
    path = folder / "a.wav"
    wave = tone()
    if kind == "absent":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "no bytes":
        path.write_bytes(b"")
    elif kind == "no samples":
        store(folder, np.zeros(0))
    elif kind == "nan":
        wave[4000] = np.nan
        store(folder, wave, subtype="FLOAT")
    elif kind == "infinite":
        wave[4000] = -np.inf
        store(folder, wave, subtype="DOUBLE")
    elif kind == "integers":
        store(folder, np.rint(wave * 30000), subtype="FLOAT")
    elif kind == "text":
        path.write_text("this is a text " * 20)
    elif kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    elif kind == "m4a":
        path = folder / "a.m4a"
        path.write_bytes(b"\0\0\0 ftypM4A " + bytes(100))
    elif kind == "raw":
        path = folder / "a.raw"
        path.write_bytes(bytes(1000))
    elif kind == "cut":
        path = store(folder, tone(4.0), "a.flac")
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 3])
    elif kind == "cut wav":
        store(folder, tone(4.0))
        path.write_bytes(path.read_bytes()[:64044])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", r"a\.wav: no such file"),
        ("folder", r"a\.wav: is a folder"),
        ("no bytes", r"a\.wav: is an empty file"),
        ("no samples", r"a\.wav: has no samples"),
        ("nan", r"a\.wav: NaN or infinity at 0\.250 s"),
        ("infinite", r"a\.wav: NaN or infinity at 0\.250 s"),
        ("integers", r"a\.wav: .* divide its samples by 32768"),
        ("text", r"a\.wav: is no audio that libsndfile reads .* ffmpeg -i a\.wav"),
        ("pointer", r"a\.wav: is a pointer of Git LFS: run git lfs pull"),
        (
            "m4a",
            r"a\.m4a: libsndfile does not read \.m4a: convert it, ffmpeg -i a\.m4a",
        ),
        ("raw", r"a\.raw: is no audio that libsndfile reads"),
        ("cut", r"a\.flac: "),
        (
            "cut wav",
            r"a\.wav: ends after 2\.00 s, but its header says 4\.00 s: the",
        ),
    ],
)
def test_each_fault_is_one_line(tmp_path: Path, kind: str, message: str) -> None:
    path = damaged(tmp_path, kind)
    with pytest.raises(UserError, match=message) as caught:
        read_audio(path, RATE)
    assert "\n" not in str(caught.value)


def test_a_file_that_vanishes_or_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = store(tmp_path, tone(4.0))
    with open_audio(path, RATE) as audio:
        blocks = audio.blocks(0.5)
        next(blocks)
        with path.open("r+b") as stream:
            stream.truncate(40000)
        with pytest.raises(
            UserError, match=r"a\.wav: ends after 1\.\d+ s, but .* 4\.00"
        ):
            list(blocks)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        open_audio(path, RATE)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_has_no_windows_behind_its_end(
    tmp_path: Path, share: float
) -> None:
    path = store(tmp_path, tone(40.0), "a.mp3", subtype="MPEG_LAYER_III")
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    with open_audio(path, RATE) as audio:
        if audio.duration < 39:
            pytest.skip("this libsndfile does not believe the header")
        assert len(audio.read(0, 10)) == 10 * RATE
        for end in (38, audio.duration):
            with pytest.raises(UserError, match=r"a\.mp3: ends after .* 40\.\d\d s"):
                audio.read(20, end)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 32000])
def test_a_wav_file_whose_header_does_not_know_the_size(
    tmp_path: Path, size: int
) -> None:
    path = store(tmp_path, tone(1.0))
    content = bytearray(path.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(read_audio(path, RATE)[0]) == RATE


def test_doubts_about_audio_that_is_read_in_windows(tmp_path: Path) -> None:
    path = store(tmp_path, np.stack([tone(3.0), -tone(3.0)], axis=1))
    with open_audio(path, RATE) as audio:
        audio.read(1, 2)
        audio.note_doubts()
        assert len(audio.notes) == 1, "the beginning is unknown"
        audio.read(0, 1)
        audio.note_doubts()
        audio.note_doubts()
        assert "cancel each other out" in audio.notes[1] and len(audio.notes) == 2


def test_a_conversion_without_soxr_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soxr", None)
    path = store(tmp_path, tone(rate=8000), samplerate=8000)
    with pytest.raises(UserError, match="8000 Hz, the model needs 16000 Hz: pip insta"):
        read_audio(path, RATE)
    assert len(read_audio(path, 8000)[0]) == 4000
