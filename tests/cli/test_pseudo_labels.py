"""espnet-cif pseudo-labels: the data folder that it writes, reports and refuses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from error_line import error_line
from recognitions import recognition

from espnet_cif_hkd.cli.pseudo_labels import main
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.writers import write
from espnet_cif_hkd.io.tables import read_table

RATE = 8000
SHORT = [("so", 0.1, 0.5), ("far", 0.6, 1.0)]
LONG = [("so", 1.0, 1.5), ("good", 2.7, 3.2)]


class Case:
    """A transcribed set, speech, and what was recognised in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.speech = folder / "data/train", folder / "speech"
        self.results, self.out = folder / "results", folder / "data/more"
        self.data.mkdir(parents=True)
        sound(folder / "b.wav", 1.25)
        (self.data / "wav.scp").write_text(f"b-1 {folder / 'b.wav'}\n")
        (self.data / "text").write_text("b-1 SAY IT\n")
        (self.data / "utt2spk").write_text("b-1 b\n")
        self.add("one", recognition(SHORT, duration=1.2, confidence=0.9))
        self.add("deep/two", recognition(SHORT, duration=1.5, confidence=0.4))

    def add(self, name: str, found: Recognition, channels: int = 1) -> None:
        sound(self.speech / f"{name}.flac", found.duration, channels)
        path = self.results / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write(found, name, "json"))

    def words(self, *more: object) -> list[str]:
        given = (self.speech, "--results", self.results, "--data_dir", self.data)
        return [str(one) for one in (*given, "-o", self.out, *more)]

    def run(self, *more: object) -> dict[str, dict[str, str]]:
        main(self.words(*more))
        files = ("wav.scp", "text", "utt2spk", "spk2utt")
        return {name: dict(read_table(self.out / name)) for name in files}


def sound(path: Path, seconds: float, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.zeros((round(seconds * RATE), channels), np.int16)
    soundfile.write(path, samples, RATE)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_short_recordings_are_utterances(case: Case) -> None:
    tables = case.run()
    assert tables["text"] == {
        "b-1": "SAY IT",
        "pseudo-deep-two": "so far",
        "pseudo-one": "so far",
    }
    assert tables["wav.scp"]["pseudo-deep-two"] == str(case.speech / "deep/two.flac")
    assert tables["utt2spk"]["pseudo-one"] == "pseudo-one"
    assert tables["spk2utt"]["b"] == "b-1"
    assert set(tables["wav.scp"]) == set(tables["text"]) == set(tables["utt2spk"])
    assert not (case.out / "segments").exists()


def test_a_long_recording_needs_segments_of_all(case: Case) -> None:
    case.add("talk", recognition(LONG, duration=4.0))
    tables = case.run("--longest", "2")
    segments = dict(read_table(case.out / "segments"))
    assert set(segments) == set(tables["text"]) == set(tables["utt2spk"])
    assert {line.split()[0] for line in segments.values()} == set(tables["wav.scp"])
    assert segments["b-1"].split()[1:] == ["0", "1.250000"]
    talk = {name: line for name, line in segments.items() if "talk" in name}
    assert talk == {
        "pseudo-talk-00000800-00001700": "pseudo-talk 0.800000 1.700000",
        "pseudo-talk-00002500-00003400": "pseudo-talk 2.500000 3.400000",
    }
    assert tables["text"]["pseudo-talk-00002500-00003400"] == "good"
    # Without it, the next call leaves no segments behind.
    case.run("--longest", "5")
    assert not (case.out / "segments").exists()


def test_segments_of_the_transcribed_set_are_kept(case: Case) -> None:
    (case.data / "segments").write_text("b-1 b-1 0.25 1.0\n")
    tables = case.run()
    segments = dict(read_table(case.out / "segments"))
    assert segments["b-1"] == "b-1 0.25 1.0"
    assert segments["pseudo-one"] == "pseudo-one 0.000000 1.200000"
    assert set(segments) == set(tables["text"])


def test_what_is_left_out_is_counted(
    case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    case.add("empty", Recognition(duration=1.0))
    case.add("odd", recognition([("<unk>", 0.0, 0.1), ("a", 0.2, 0.3)], duration=0.9))
    case.add("brief", recognition([("a", 0.0, 0.1)], duration=0.3))
    case.add("stereo", recognition(SHORT, duration=1.2), channels=2)
    case.add("endless", recognition([("la", 1.0, 8.0)], duration=9.0))
    sound(case.speech / "new.wav", 1.0)
    case.add("gone", recognition(SHORT, duration=1.2))
    (case.speech / "gone.flac").write_text("no audio")
    tables = case.run("--least_confidence", "0.5", "--longest", "7")
    assert set(tables["text"]) == {"b-1", "pseudo-one"}
    printed = capfd.readouterr().out
    for line in (
        "1 utterances of " + str(case.data) + " and 1 with recognised text, 0.00 hours",
        "left out: 1 too long, 1 too short, 1 with <unk>, "
        "1 with a low confidence, 1 with several channels, 1 without text",
        "2 of 9 recordings have no result in ",
        " or cannot be read (gone, new): they are left out",
    ):
        assert line in printed
    # A recogniser without confidences has no utterance that is sure enough.
    case.add("unknown", recognition(SHORT, duration=1.2, confidence=None))
    assert "pseudo-unknown" not in case.run("--least_confidence", "0.5")["text"]
    assert "pseudo-unknown" in case.run()["text"]


def refused(case: Case, capsys: pytest.CaptureFixture[str], words: Sequence) -> str:
    line = error_line(main, capsys, *case.words(*words))
    assert not case.out.exists()
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--least_confidence", "1.5"], "write a number from 0 to 1"),
        (["--least_confidence", "nan"], "write a number from 0 to 1"),
        (["--shortest", "3", "--longest", "2"], "--longest greater than --shortest"),
        (["--longest", "inf"], "--longest greater than --shortest"),
        (["--data_dir", "none"], "--data_dir none has no wav.scp: give the training"),
        (["--least_confidence", "0.95"], "no utterance is left of 2 recordings"),
        (["--results", "none"], "espnet-cif transcribe … -f json -o none"),
    ],
)
def test_wrong_options(
    case: Case,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert message in refused(case, capsys, words)


def test_the_transcribed_set_is_not_overwritten(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is --data_dir" in refused(case, capsys, ["-o", case.data])
    assert dict(read_table(case.data / "text")) == {"b-1": "SAY IT"}


def test_damaged_results_are_named(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    (case.results / "one.json").write_text('{"text": 1')
    line = refused(case, capsys, [])
    assert "one.json: is no result of `espnet-cif transcribe -f json`" in line


def test_two_recordings_of_one_name(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.add("deep-two", recognition(SHORT, duration=1.5))
    assert "two recordings are called pseudo-deep-two" in refused(case, capsys, [])


def test_a_set_with_this_speech_is_not_extended_by_it_again(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.run()
    case.data, case.out = case.out, case.folder / "data/third"
    assert "two recordings are called pseudo-" in refused(case, capsys, [])


def test_a_command_in_wav_scp_has_no_known_length(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    (case.data / "wav.scp").write_text("b-1 sox b.wav -t wav - |\n")
    case.add("talk", recognition(LONG, duration=4.0))
    assert "b-1 is a command" in refused(case, capsys, ["--longest", "2"])
    assert "pseudo-one" in case.run()["text"]


def test_text_of_another_recogniser(
    case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    for n in range(5):
        sound(case.speech / f"{n}.flac", 1.0)
    sound(case.speech / "stereo.flac", 1.0, 2)
    table = case.folder / "labels"
    table.write_text(
        "one It, says...\n0 Say 7 its\n1 [laughter]\n2\n3 stay!\n"
        "stereo say\nother say\n"
    )
    words = case.words()
    words[words.index("--results") : words.index("--results") + 2] = ["--text", table]
    main([str(word) for word in words])
    text = dict(read_table(case.out / "text"))
    assert text == {"b-1": "SAY IT", "pseudo-one": "IT SAYS", "pseudo-3": "STAY"}
    printed = capfd.readouterr().out
    assert "2 of 8 recordings have no result in" in printed and "deep/two" in printed
    assert "1 with characters that no transcript has" in printed
    assert "1 with several channels, 2 without text" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--text labels: there is no such table"),
        (["--least_confidence", 0.5], "the table of --text has no confidences"),
    ],
)
def test_wrong_tables(
    case: Case,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[object],
    message: str,
) -> None:
    monkeypatch.chdir(case.folder)
    if more:
        Path("labels").write_text("one YES\n")
    words = [case.speech, "--text", "labels", "--data_dir", case.data, "-o", case.out]
    assert message in error_line(main, capsys, *words, *more)
