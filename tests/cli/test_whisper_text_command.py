"""whisper_text: the table that it writes, continues and refuses."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from error_line import error_line
from writing_whisper import WORDS, build_writing_whisper, tone

from espnet_cif_hkd.cli.whisper_text import main
from espnet_cif_hkd.io.tables import read_table


class Case:
    """A Whisper, and recordings in a folder."""

    def __init__(self, folder: Path) -> None:
        self.model = build_writing_whisper(folder / "whisper")
        self.speech, self.table = folder / "speech", folder / "labels/text"
        for n, name in enumerate(("a", "deep/b", "c d", "e", "f"), 3):
            self.add(name, tone(n, 8000))

    def add(self, name: str, wave: np.ndarray) -> Path:
        path = self.speech / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, 8000)
        return path

    def words(self, *more: object) -> list[str]:
        given = (self.speech, "--model", self.model, "--language", "en")
        return [str(one) for one in (*given, "-o", self.table, *more)]

    def run(self, *more: object) -> dict[str, str]:
        main(self.words(*more))
        return dict(read_table(self.table))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_each_recording_has_a_line(case: Case) -> None:
    found = case.run("--batch_size", 2)
    assert list(found) == ["a", "c_d", "deep/b", "e", "f"]
    assert {word for text in found.values() for word in text.split()} <= set(WORDS)
    assert any(found.values())


def test_an_interrupted_command_continues(
    case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = case.run()
    lines = case.table.read_text().splitlines(keepends=True)
    case.table.write_text("".join(lines[:3]) + lines[3][:1])
    assert case.run() == wanted
    assert "5 recordings, 2 of them new, 0 left out" in capfd.readouterr().out
    case.add("g", tone(1, 8000))
    assert case.run().keys() == {*wanted, "g"}


def test_nothing_is_left_to_do(
    case: Case, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = case.run()
    module = "espnet_cif_hkd.teachers.speech.whisper_text.WhisperText"
    monkeypatch.setattr(module, None)  # it is not opened
    assert case.run() == wanted
    assert "5 recordings, is up to date" in capfd.readouterr().out


def test_the_longest_recording_may_gain_a_sample(case: Case) -> None:
    case.add("longest", np.zeros(24000))
    path = case.speech / "longest.flac"
    # 3 s at a rate whose resampled length is rounded up.
    soundfile.write(path, np.zeros(33074), 11025)
    assert len(case.run()) == 6


def test_what_cannot_be_read_is_named(
    case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    case.add("long", np.zeros(28000))
    (case.speech / "no.flac").write_text("no audio")
    assert len(case.run()) == 5
    printed = capfd.readouterr().out
    assert "long.flac: 3.5 s, more than 3" in printed and "no.flac" in printed
    assert "5 recordings, 5 of them new, 2 left out" in printed


def test_wrong_commands(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.run()

    def refused(*more: object) -> str:
        return error_line(main, capsys, *case.words(*more))

    assert "is the text of another model, language, channel, dtype" in refused(
        "--dtype", "bfloat16"
    )
    assert "dtype or --before: name another file" in refused("--before", "so far")
    assert "--batch_size 0: write 1 or more" in refused("--batch_size", 0)
    assert "no folder with a Whisper" in refused("--model", case.speech)
    for path in case.speech.rglob("*.flac"):
        path.unlink()
    only = case.add("long", np.zeros(28000))
    new = case.table.with_name("new")
    assert f"no text is written: {only}: 3.5 s" in refused("-o", new)
