"""Voicing: which recording a syllable gets, and what is done to it."""

from pathlib import Path

import hsk_fixture as fixture
import numpy as np
import pytest

from espnet_cif_hkd.errors import UserError

hsk_voice = fixture.load("hsk_voice")
Sentence = fixture.load("hsk_sentences").Sentence
RATE = hsk_voice.RATE
PLAIN = hsk_voice.Variation(0.0, 0.0, 0.0, 0.0, (60.0, 60.0), (0.0, 0.0))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("voice") / "voice.deb"
    return hsk_voice.Recordings(fixture.deb(path))


def _sentence(pinyin: str, stops: tuple[int, ...] | None = None, name: str = "a"):
    syllables = tuple(pinyin.split())
    stops = stops or (0,) * (len(syllables) - 1) + (2,)
    return Sentence(name, "马" * len(syllables), syllables, syllables, stops)


def _seconds(wave: np.ndarray) -> float:
    return len(wave) / RATE


@pytest.mark.parametrize(
    ("pinyin", "other", "after", "name"),
    [
        ("ma1", "ma1", "", "ㄇㄚ"),
        ("ma5", "ma5", "4", "ㄇㄚ1"),
        ("da5", "da5", "1", "ㄉㄚ4"),
        ("ren5", "ren5", "1", "ㄖㄣ4"),
        ("ren5", "ren5", "3", "ㄖㄣ"),
        ("r5", "r5", "4", "ㄦ4"),
        ("hao2", "hao3", "", "ㄏㄠ2"),
        ("wo2", "wo3", "", "ㄨㄛ3"),
        ("wo4", "wo4", "", None),
        ("hm3", "hm3", "", None),
    ],
)
def test_a_syllable_finds_its_recording(
    recordings, pinyin: str, other: str, after: str, name: str | None
) -> None:
    assert recordings.find(pinyin, other, after, "3") == name
    assert recordings.find(pinyin, other, after, "5") is None


def test_recordings_lose_their_silence_and_get_one_loudness(recordings) -> None:
    for name in ("ㄇㄚ", "ㄖㄣ"):
        wave = recordings.read(name, "3")
        # 0.3 s of tone between two times 0.1 s of silence.
        assert _seconds(wave) == pytest.approx(0.3, abs=0.02)
        assert np.sqrt((wave**2).mean()) == pytest.approx(0.08)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_stretching_changes_tempo_and_pitch_alike(factor: float) -> None:
    wave = np.sin(2 * np.pi * 1000 * np.arange(1600) / RATE) * np.hanning(1600)
    done = hsk_voice.stretched(wave, round(1600 / factor))
    spectrum = np.abs(np.fft.rfft(done, RATE))
    assert spectrum.argmax() == pytest.approx(1000 * factor, abs=6)
    assert np.abs(done).max() == pytest.approx(1.0, abs=0.01)


def test_a_sentence_is_always_said_the_same_way_and_each_in_its_own(
    recordings,
) -> None:
    first, again, other = (
        hsk_voice.voice_sentence(recordings, _sentence("ma1 hao3", name=name))
        for name in "aab"
    )
    assert np.array_equal(first, again)
    assert len(first) != len(other)
    assert np.abs(first).max() < 1


def test_syllables_follow_each_other_with_pauses_at_stops(recordings) -> None:
    def length(stops: tuple[int, ...]) -> float:
        sentence = _sentence("ma1 ma4", stops)
        return _seconds(hsk_voice.voice_sentence(recordings, sentence, variation=PLAIN))

    # Two syllables of 0.3 s, three cross-fades of 0.03 s, margins of 0.08 to 0.2 s.
    assert 0.6 - 0.09 + 0.16 <= length((0, 2)) + 0.02 <= 0.6 - 0.09 + 0.4 + 0.04
    assert 0.04 < length((1, 2)) - length((0, 2)) < 0.4
    assert length((1, 2)) != length((2, 2))


def test_third_and_neutral_tones_are_shorter_within_a_phrase(recordings) -> None:
    def length(pinyin: str, stops: tuple[int, ...] | None = None) -> float:
        sentence = _sentence(pinyin, stops)
        return _seconds(hsk_voice.voice_sentence(recordings, sentence, variation=PLAIN))

    level = length("ma1 ma1")
    assert length("hao3 ma1") == pytest.approx(level - 0.3 * 0.3, abs=0.02)
    assert length("ma1 hao3") == pytest.approx(level, abs=0.02)
    assert length("hao3 ma1", (1, 2)) == pytest.approx(
        length("ma1 ma1", (1, 2)), abs=0.02
    )
    # da is not recorded in the neutral tone, ma is.
    assert length("ma1 da5") == pytest.approx(level - 0.4 * 0.3, abs=0.02)
    assert length("ma1 ma5") == pytest.approx(level, abs=0.02)


def test_variation_stays_within_its_ranges(recordings) -> None:
    names = [f"hsk1-{n:04d}" for n in range(60)]
    sentences = [_sentence("ma1 ma1 ma1 ma1", name=name) for name in names]
    waves = [hsk_voice.voice_sentence(recordings, sentence) for sentence in sentences]
    spoken = 4 * 0.3 - 5 * 0.03
    lengths = [_seconds(wave) for wave in waves]
    assert spoken / 1.1 / 1.05 + 0.1 < min(lengths) < spoken + 0.2
    assert spoken + 0.25 < max(lengths) < spoken / 0.9 / 0.95 + 0.5
    levels = [np.sqrt((wave**2).mean()) for wave in waves]
    assert 3 < 20 * np.log10(max(levels) / min(levels)) < 20


def test_noise_has_the_ratio_and_the_colour_asked_for(recordings) -> None:
    def begins(snr: float, colour: float) -> np.ndarray:
        vary = hsk_voice.Variation(0.0, 0.0, 0.0, 0.0, (snr, snr), (colour, colour))
        wave = hsk_voice.voice_sentence(recordings, _sentence("ma1"), variation=vary)
        return wave[: int(0.04 * RATE)]  # before the first syllable

    def power(wave: np.ndarray) -> float:
        return float((wave**2).mean())

    loud, soft = begins(10.0, 0.0), begins(30.0, 0.0)
    assert 10 * np.log10(power(loud) / power(soft)) == pytest.approx(20, abs=0.5)
    assert 20 * np.log10(0.08 / np.sqrt(power(loud))) == pytest.approx(10, abs=1.5)

    def high(wave: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        return float(spectrum[len(spectrum) // 2 :].sum() / spectrum.sum())

    assert high(begins(20.0, 0.0)) > 0.3 > 0.05 > high(begins(20.0, 2.0))


def test_a_syllable_that_is_not_recorded_is_named(recordings) -> None:
    assert hsk_voice.voice_sentence(recordings, _sentence("ma1 wo4 ma1")) == "wo4"


def test_what_is_no_package_is_reported(tmp_path: Path) -> None:
    fixture.deb(tmp_path / "whole.deb")
    path = tmp_path / "voice.deb"
    path.write_bytes(b"no package")
    with pytest.raises(UserError, match=r"voice\.deb: dpkg-deb: error"):
        hsk_voice.Recordings(path)


def test_without_dpkg_deb_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install the package dpkg"):
        hsk_voice.Recordings(tmp_path / "voice.deb")


def test_spans_are_where_the_syllables_are(recordings) -> None:
    spans: list[tuple[int, int]] = []
    wave = hsk_voice.voice_sentence(
        recordings, _sentence("ma1 ma1 ma1", (0, 1, 2)), variation=PLAIN, spans=spans
    )
    assert len(spans) == 3
    assert all(end - begin == spans[0][1] - spans[0][0] for begin, end in spans)
    margin, fade = hsk_voice._MARGIN, hsk_voice._FADE
    assert margin[0] - fade <= spans[0][0] / RATE <= margin[1]
    assert spans[0][1] - spans[1][0] == int(fade * RATE)
    assert spans[2][0] > spans[1][1] and spans[2][1] <= len(wave)
    loud = [np.abs(wave[begin:end]).mean() for begin, end in spans]
    pause = wave[spans[1][1] : spans[2][0]]
    assert min(loud) > 20 * np.abs(pause).mean()
