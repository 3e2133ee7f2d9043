"""espnet-cif transcribe: files in, results out; with a recogniser without a model."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import fake_recognizer
import pytest
from transcribe_case import run, wave

from espnet_cif_hkd.cli import transcribe
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference import results_folder
from espnet_cif_hkd.inference.writers.verbose_json import recognition_of

RATE = fake_recognizer.RATE
# Two processes of a few seconds follow from it; see below.
KILLED = """
import sys
import fake_recognizer
fake_recognizer.install().killed_at = int(sys.argv[1])
from espnet_cif_hkd.cli.transcribe import main
sys.exit(main(sys.argv[2:]))
"""


def test_text_alone_is_printed_in_order(tmp_path, fake, capsys) -> None:
    files = [wave(tmp_path, f"{level}.wav", level) for level in (30, 10, 20)]
    assert run(*files) == 0
    out, err = capsys.readouterr()
    assert out == "w30\nw10\nw20\n"
    assert err == ""
    assert fake.batches == [1, 2], "the first text must not wait for a batch"


@pytest.mark.parametrize("form", ["json", "srt", "vtt", "tsv", "ctm", "textgrid"])
def test_other_formats_are_printed(tmp_path, fake, capsys, form) -> None:
    assert run(wave(tmp_path, "a.wav", 30), "-f", form) == 0
    assert "w30" in capsys.readouterr().out


def test_all_formats_in_a_folder(tmp_path, fake, capsys) -> None:
    files = [wave(tmp_path, "b b.wav", 30), wave(tmp_path, "a.wav", 10, 1.0)]
    out = tmp_path / "out"
    assert run(*files, "-f", "all", "-o", out) == 0
    assert capsys.readouterr() == ("", f"2 files, 0:01 of audio: {out}\n")
    suffixes = ("txt", "json", "srt", "vtt", "tsv", "ctm", "TextGrid")
    names = {f"{name}.{suffix}" for name in ("a", "b b") for suffix in suffixes}
    visible = {one.name for one in out.iterdir() if not one.name.startswith(".")}
    assert visible == names | {"text", "kaldi"}
    assert (out / "text").read_text() == "a w10 w10\nb_b w30\n"
    assert (out / "kaldi" / "segments").read_text() == (
        "a-00000000-00000900 a 0.000 0.900\nb_b-00000000-00000400 b_b 0.000 0.400\n"
    )
    assert (
        (out / "kaldi" / "text").read_text().startswith("a-00000000-00000900 w10 w10")
    )
    fields = json.loads((out / "b b.json").read_text())
    assert recognition_of(fields).validate().text == fields["text"] == "w30"


def test_conversions_are_said_once(tmp_path, fake, capsys) -> None:
    files = [wave(tmp_path, f"{i}.wav", i, 1.0, 16000) for i in range(1, 4)]
    assert run(*files) == 0
    err = capsys.readouterr().err
    assert err == f"{files[0]}: 16000 Hz is resampled to 8000 Hz; said once\n"


def test_a_bad_file_stops_nothing(tmp_path, fake, capsys) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    files = [wave(tmp_path, f"{level}.wav", level) for level in (10, 20, 30, 40)]
    fake.fails_at = 30
    bad = tmp_path / "text.wav"
    assert run(files[0], bad, tmp_path / "absent.wav", *files[1:]) == 1
    out, err = capsys.readouterr()
    assert out == "w10\nw20\nw40\n"
    lines = err.splitlines()
    assert lines[0].startswith(f"error: {bad}: is no audio")
    assert lines[1] == f"error: {tmp_path}/absent.wav: no such file"
    assert lines[2] == f"error: {files[2]}: RuntimeError: the matrix is singular"
    assert lines[3:] == ["3 of 6 files failed"]


def test_a_rerun_does_the_rest(tmp_path, fake, capsys) -> None:
    files = [wave(tmp_path, f"{level}.wav", level) for level in (10, 20, 30)]
    options = ("-f", "txt,srt", "-o", tmp_path / "out")
    assert run(files[0], *options) == 0
    fake.batches.clear()
    assert run(*files, *options) == 0
    assert sum(fake.batches) == 2
    assert "1 of 3 files have complete results" in capsys.readouterr().err
    # One of two formats is missing, or the recording is newer than its results.
    (tmp_path / "out" / "20.srt").unlink()
    os.utime(files[2], (2e9, 2e9))
    fake.batches.clear()
    assert run(*files, *options) == 0
    assert sum(fake.batches) == 2
    assert (tmp_path / "out" / "20.srt").exists()
    os.utime(files[2], (1e9, 1e9))
    made = len(fake.made)
    assert run(*files, *options) == 0
    assert len(fake.made) == made, "nothing is left, so no model is loaded"
    assert run(*files, *options, "--overwrite") == 0
    assert len(fake.made) == made + 1


def test_results_of_another_model_are_not_mixed_in(tmp_path, fake, capsys) -> None:
    file, out = wave(tmp_path, "a.wav", 10), tmp_path / "out"
    assert run(file, "-o", out) == 0
    assert run(file, "-o", out, "--beam", "5") == 1
    assert "results with beam None, now it is 5" in capsys.readouterr().err
    assert run(file, "-o", out, "--beam", "5", "--overwrite") == 0
    assert run(file, "-o", out, "--beam", "5") == 0
    assert fake.made[-1]["greedy"] is False and fake.made[-1]["beam_size"] == 5


def test_results_of_another_search_are_not_mixed_in(tmp_path, fake, capsys) -> None:
    file, out = wave(tmp_path, "a.wav", 10), tmp_path / "out"
    one_pass = [file, "-o", out, "--one_pass"]
    assert run(*one_pass, "--fallback_below", "0.3") == 0
    assert fake.made[-1]["one_pass"] and fake.made[-1]["fallback_below"] == 0.3
    for other, option in ((one_pass[:-1], "one_pass"), (one_pass, "fallback_below")):
        capsys.readouterr()
        assert run(*other) == 1
        assert f"results with {option} " in capsys.readouterr().err


def test_a_table_has_the_results_of_one_model(tmp_path, fake, capsys) -> None:
    a, b = wave(tmp_path, "a.wav", 10), wave(tmp_path, "b.wav", 20)
    options = ("-f", "text", "-o", tmp_path / "out")
    assert run(a, *options) == 0
    assert run(b, *options, "--beam", "5") == 1, "another recording, the same table"
    assert run(b, *options, "--beam", "5", "--overwrite") == 0
    assert (tmp_path / "out/text").read_text() == "b w20\n"
    capsys.readouterr()
    assert run(a, b, *options, "--beam", "5") == 1
    assert "has results of a of another model" in capsys.readouterr().err
    assert run(a, b, *options, "--beam", "5", "--overwrite") == 0
    assert (tmp_path / "out/text").read_text() == "a w10\nb w20\n"
    assert run(a, b, *options, "--beam", "5", "--long_above", "9") == 1
    assert "results with long_above 30.0, now it is 9.0" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["9epoch.pth", "calibration.json", "10epoch.pth"])
def test_a_model_that_was_trained_on_is_another_one(
    tmp_path, fake, capsys, changed
) -> None:
    model = tmp_path / "exp"
    model.mkdir()
    for name in ("config.yaml", "9epoch.pth"):
        (model / name).write_text("before")
    words = [str(wave(tmp_path, "a.wav", 10)), "-o", str(tmp_path / "out"), "-m"]
    words += [str(model), "--device", "cpu"]
    assert transcribe.main(words) == 0
    (model / "1epoch.pth").write_text("not used")
    assert transcribe.main(words) == 0
    assert "1 of 1 files have complete results" in capsys.readouterr().err
    (model / changed).write_text("after")
    assert transcribe.main(words) == 1
    err = capsys.readouterr().err
    name = "calibration" if changed == "calibration.json" else "model_file"
    assert f"out has results with {name} " in err and "--overwrite" in err


@pytest.mark.slow
def test_a_killed_batch_continues(tmp_path) -> None:
    files = [wave(tmp_path, f"{level}.wav", level) for level in range(10, 30, 2)]
    out = tmp_path / "out"
    support = Path(fake_recognizer.__file__).parent
    path = os.pathsep.join([str(support), os.environ["PYTHONPATH"]])
    last = ["--batch_size", "1", "-m", "m", "--device", "cpu", "-f", "all", "-o", out]

    def command(level: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(level), *files, *last],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    assert command(20).returncode == -9
    times = {one.name: one.stat().st_mtime_ns for one in out.glob("*.txt")}
    assert sorted(times) == [f"{level}.txt" for level in range(10, 20, 2)]
    done = command(-1)
    assert done.returncode == 0, done.stderr
    assert "5 of 10 files have complete results" in done.stderr
    for name, made in times.items():
        assert (out / name).stat().st_mtime_ns == made
    assert (out / "text").read_text() == "".join(
        f"{n} w{n}\n" for n in range(10, 30, 2)
    )
    assert not list(out.rglob("*.part*"))


def test_a_file_that_is_half_written_is_not_seen(tmp_path, fake, monkeypatch) -> None:
    out = tmp_path / "out"

    def write(path: Path, text: str) -> None:
        if path.suffix == ".srt":
            raise OSError(28, "No space left on device", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(results_folder, "write_text", write)
    files = [wave(tmp_path, f"{level}.wav", level) for level in (10, 20)]
    assert run(*files, "-f", "txt,srt", "-o", out) == 1
    assert fake.batches == [1], "a full disk fails for all further files"


def test_two_inputs_with_one_name_are_refused(tmp_path, fake, capsys) -> None:
    one, two = wave(tmp_path, "x/a.wav", 10), wave(tmp_path, "y/a.flac", 20)
    assert run(one, two, "-o", tmp_path / "out") == 1
    assert f"{one} and {two} would both be written as 'a'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    # The folder above gives both their own place; a file twice is one file.
    assert run(tmp_path, one.parent.parent, "-o", tmp_path / "out") == 0
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.txt")} == {
        "out/x/a.txt",
        "out/y/a.txt",
    }


def test_folders_patterns_and_tables(tmp_path, fake, capsys) -> None:
    for name, level in (("a.wav", 10), ("b.FLAC", 20), (".hidden.wav", 30)):
        wave(tmp_path, name, level)
    (tmp_path / "notes.txt").write_text("")
    assert run(tmp_path, "-f", "text") == 0
    assert capsys.readouterr().out == "a w10\nb w20\n"
    assert run(tmp_path / "*.wav") == 0
    assert capsys.readouterr().out == "w10\n"
    table = tmp_path / "wav.scp"
    table.write_text(f"u2 {tmp_path}/b.FLAC\nu1 {tmp_path}/a.wav\n")
    assert run(table, "-f", "text") == 0
    assert capsys.readouterr().out == "u2 w20\nu1 w10\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("u1 sox a.wav -t wav - |", "line 1: u1 is a command"),
        ("../u1 a.wav", "line 1: ../u1 is no name of a file"),
        ("", "no recordings in it"),
    ],
)
def test_tables_that_name_no_files(tmp_path, fake, capsys, lines, message) -> None:
    (tmp_path / "wav.scp").write_text(lines)
    assert run(tmp_path / "wav.scp") == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-f", "doc"], "no format 'doc': choose from txt, json"),
        (["-f", "txt,srt"], "-f txt,srt needs several files: give -o"),
        (["-f", "kaldi"], "-f kaldi needs several files: give -o"),
        (["--beam", "0"], "--beam 0: write 1 or more"),
        (["--batch_size", "0"], "--batch_size 0: write 1 or more"),
        (["--ctc_weight", "0.3"], "--ctc_weight needs a beam search"),
        (["--lines", "0"], "0 lines: write 1 or more"),
        (["--model", "absent"], "absent: no such model"),
        (["--channel", "left"], "channel 'left': write mean"),
        (["nothing*.wav"], "no file fits this pattern"),
        (["{folder}/empty"], "no audio files in this folder"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, fake, capsys, args, message) -> None:
    (tmp_path / "empty").mkdir()
    args = [arg.format(folder=tmp_path) for arg in args]
    file = wave(tmp_path, "a.wav", 10)
    assert transcribe.main(["-m", "m", "--device", "cpu", *args, str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_what_libraries_print_is_hidden(tmp_path, fake, monkeypatch, capsys) -> None:
    def noisy(self, samples):
        print("loading")
        print("loading", file=sys.stderr)
        logging.getLogger("espnet").warning("old")
        return [self._one(wave) for wave in samples]

    monkeypatch.setattr(fake, "recognise", noisy)
    (tmp_path / "m").mkdir()
    file = wave(tmp_path, "a.wav", 10)
    arguments = [str(file), "--model", str(tmp_path / "m"), "--device", "cpu"]
    assert transcribe.main(arguments) == 0
    assert capsys.readouterr() == ("w10\n", "")
    assert transcribe.main([*arguments, "--verbose"]) == 0
    out, err = capsys.readouterr()
    assert out == "w10\n"
    assert err.count("loading") == 2


def test_quiet(tmp_path, fake, capsys) -> None:
    file = wave(tmp_path, "a.wav", 10, rate=16000)
    assert run(file, "--quiet", "-o", tmp_path / "out") == 0
    assert run(file, "--quiet", "-o", tmp_path / "out") == 0
    assert capsys.readouterr().err == ""
    assert run(tmp_path / "absent.wav", "--quiet") == 1
    assert "no such file" in capsys.readouterr().err


def test_a_stream_gives_the_same(tmp_path, fake, capsys) -> None:
    file = wave(tmp_path, "a.wav", 20, 3.0)
    assert run(file, "--stream") == 0
    assert capsys.readouterr().out.split() == ["w20"] * 6
    assert fake.batches == []


def test_a_model_that_does_not_stream_is_refused_once(
    tmp_path, fake, monkeypatch, capsys
) -> None:
    def refuse(self):
        raise UserError("needs the complete audio")

    monkeypatch.setattr(fake, "stream", refuse)
    files = [wave(tmp_path, f"{level}.wav", level) for level in (10, 20)]
    assert run(*files, "--stream") == 1
    assert capsys.readouterr().err == "error: needs the complete audio\n"


def test_progress_in_audio_time_on_a_terminal_only(tmp_path, fake, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    files = [wave(tmp_path, f"{level}.wav", level, 90.0) for level in (10, 20)]
    assert run(*files, "--long_above", "100") == 0
    assert "1:30 of 3:00, 50 %" in terminal.getvalue()
    assert "× real time" in terminal.getvalue()


def test_interrupted(tmp_path, fake, monkeypatch, capsys) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "recognise", stop)
    assert run(wave(tmp_path, "a.wav", 10)) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
