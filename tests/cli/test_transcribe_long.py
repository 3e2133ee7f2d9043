"""espnet-cif transcribe: files that are read in windows."""

import fake_recognizer
import numpy as np
import pytest
import soundfile
from transcribe_case import run, wave

from espnet_cif_hkd.cli import transcribe
from espnet_cif_hkd.inference.recognition import Recognition

RATE = fake_recognizer.RATE


def test_long_files_are_read_in_passages(tmp_path, fake, capsys) -> None:
    files = [wave(tmp_path, "a.wav", 10), wave(tmp_path, "b.wav", 20, 3.0)]
    files.append(wave(tmp_path, "c.wav", 30))
    assert run(*files, "--long_above", "2") == 0
    assert fake.long_reads == [(0, 1), (1, 2), (2, 3)]
    assert capsys.readouterr().out.splitlines() == ["w10", *["w20 w20"] * 3, "w30"]


def test_a_long_file_without_readers_ends_the_command(
    tmp_path, fake, capsys, monkeypatch
) -> None:
    files = [wave(tmp_path, f"{name}.wav", 10, 3.0) for name in "ab"]

    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(transcribe.Printer, "passage", closed)
    monkeypatch.setattr(transcribe, "guarded", lambda run, args: run(args))
    with pytest.raises(BrokenPipeError):
        run(*files, "--long_above", "2")
    assert fake.long_reads == [(0, 1)] and capsys.readouterr().err == ""


def test_windows_without_text_print_nothing(tmp_path, fake, capsys, monkeypatch):
    file = wave(tmp_path, "a.wav", 10, 3.0)
    spoken = fake.long

    def with_pauses(self, *args, **kwargs):
        for passage in spoken(self, *args, **kwargs):
            yield Recognition(duration=3.0)
            yield passage

    monkeypatch.setattr(fake, "long", with_pauses)
    assert run(file, "--long_above", "2") == 0
    assert capsys.readouterr().out == "w10 w10\n" * 3


def test_doubts_about_long_files_are_said(tmp_path, fake, capsys) -> None:
    file = wave(tmp_path, "a.wav", 0, 3.0)
    assert run(file, "--long_above", "2") == 0
    assert f"{file}: is silent; said once" in capsys.readouterr().err


def test_text_of_a_long_file_appears_by_and_by(tmp_path, fake, capsys) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, np.repeat([0.1, 0.2, 0.3, 0.4], RATE), RATE)
    fake.fails_at = 30
    assert run(file, "--long_above", "2") == 1
    assert capsys.readouterr().out == "w10 w10\nw20 w20\n"
    fake.fails_at = -1
    assert run(file, "--long_above", "2", "-f", "text") == 0
    assert capsys.readouterr().out.startswith("a w10 w10 w20")


def test_a_long_file_continues_where_it_failed(tmp_path, fake, capsys) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, np.repeat([0.1, 0.2, 0.3, 0.4], RATE), RATE)
    options = (file, "--long_above", "2", "-o", tmp_path / "out")
    fake.fails_at = 30
    assert run(*options) == 1
    fake.fails_at = -1
    fake.long_reads.clear()
    assert run(*options) == 0
    assert fake.long_reads == [(2, 3), (3, 4)]
    text = "w10 w10 w20 w20 w30 w30 w40 w40"
    assert (tmp_path / "out" / "a.txt").read_text().split() == text.split()
    assert not (tmp_path / "out" / ".states").exists()
    # Neither another audio nor other options continue from this state.
    fake.fails_at = 30
    assert run(*options, "--overwrite") == 1
    fake.fails_at = -1
    fake.long_reads.clear()
    assert run(*options, "--channel", "0", "--overwrite") == 0
    assert len(fake.long_reads) == 4
