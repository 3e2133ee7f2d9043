"""The speech of miniature corpora: syllables of a voice, tones when there are none."""

import subprocess
from pathlib import Path

import hsk_fixture as fixture
import numpy as np
import pytest
from miniature import speech


def test_tones_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "E: no network")

    monkeypatch.setenv("MINIATURE_SPEECH", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.warns(UserWarning, match="ARTIFICIAL TONES"):
        clips = speech.mandarin(14)
    assert [clip.words for clip in clips[:12]] == list(speech._PLAIN)
    assert clips[12].words == clips[0].words
    for clip in clips:
        assert len(clip.samples) > 0.25 * len(clip.words) * speech.RATE
        assert 0.1 < np.abs(clip.samples).max() < 1


def test_tones_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIATURE_SPEECH", speech.TONES)
    clips = speech.mandarin(2)
    assert len(clips) == 2
    assert np.array_equal(clips[1].samples, speech.tones(2)[1].samples)


def test_voices_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = speech.hsk_packages
    long = fixture.row("hsk1-9999", "马" * 13 + "。", "ma3 " * 13)
    sentences = [long, *fixture.rows(4)]
    wheel = fixture.wheel(tmp_path / packages.SENTENCES.file, sentences)
    fixture.know(monkeypatch, "SENTENCES", wheel)
    deb = fixture.deb(tmp_path / packages.VOICE.file, voices="35")
    fixture.know(monkeypatch, "VOICE", deb)
    monkeypatch.setenv("MINIATURE_SPEECH", str(tmp_path))
    clips = speech.mandarin(3)
    assert [len(clip.words) for clip in clips] == [5, 5, 5]
    recordings = speech.hsk_voice.Recordings(deb)
    kept = speech.hsk_sentences.read_sentences(wheel)[0]
    for clip, sentence, voice in zip(clips, kept[1:], "353"):
        wave = speech.hsk_voice.voice_sentence(recordings, sentence, voice)
        assert np.array_equal(clip.samples, wave)
