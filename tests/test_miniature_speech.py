"""The speech of miniature corpora: names of syllables, tones when there are none."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from miniature import speech


@pytest.mark.parametrize(
    ("pinyin", "name"),
    [
        ("ma1", "ㄇㄚ"),
        ("ma5", "ㄇㄚ1"),
        ("hao3", "ㄏㄠ3"),
        ("shi4", "ㄕ4"),
        ("ji1", "ㄐㄧ"),
        ("zhuang4", "ㄓㄨㄤ4"),
        ("xiong2", "ㄒㄩㄥ2"),
        ("jun1", "ㄐㄩㄣ"),
        ("qu4", "ㄑㄩ4"),
        ("lv3", "ㄌㄩ3"),
        ("nü3", "ㄋㄩ3"),
        ("lve4", "ㄌㄩㄝ4"),
        ("yi1", "ㄧ"),
        ("you3", "ㄧㄡ3"),
        ("ying2", "ㄧㄥ2"),
        ("yuan2", "ㄩㄢ2"),
        ("yong4", "ㄩㄥ4"),
        ("wo3", "ㄨㄛ3"),
        ("wu3", "ㄨ3"),
        ("wei4", "ㄨㄟ4"),
        ("wen2", "ㄨㄣ2"),
        ("er2", "ㄦ2"),
        ("r5", None),
        ("hao", None),
    ],
)
def test_syllables_are_named_as_gcin_names_them(pinyin: str, name: str | None) -> None:
    assert speech.zhuyin(pinyin) == name


def test_tones_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(100, "apt-get")

    monkeypatch.setenv("MINIATURE_SPEECH", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.warns(UserWarning, match="ARTIFICIAL TONES"):
        clips = speech.mandarin(14)
    assert [clip.words for clip in clips[:12]] == list(speech._PLAIN)
    assert clips[12].words == clips[0].words
    for clip in clips:
        assert len(clip.samples) > 0.25 * len(clip.words) * speech.RATE
        assert 0.1 < np.abs(clip.samples).max() < 1


def test_a_damaged_package_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(command: list[str], cwd: Path, **_: object) -> None:
        (cwd / speech._VOICE[0]).write_bytes(b"another file")

    monkeypatch.setattr(subprocess, "run", another)
    with pytest.raises(OSError, match="is not the file of 7,740,240 bytes"):
        speech.fetch(tmp_path)


def test_tones_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIATURE_SPEECH", speech.TONES)
    clips = speech.mandarin(2)
    assert len(clips) == 2
    assert np.array_equal(clips[1].samples, speech.tones(2)[1].samples)
