"""LibriSpeech's stage 1 on a miniature: its folders, refusals and downloads."""

import gzip
import hashlib
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import librispeech_fixture as fixture
import numpy as np
import pytest
import soundfile
from miniature.english import SENTENCES, tones
from miniature.librispeech import COUNTS, write_librispeech

parts = fixture.load("librispeech_parts")
prepare = fixture.load("librispeech_prepare")
wordpiece = fixture.load("wordpiece")

SETS = {
    "960": ("train_960", "train_clean_100", "train_clean_360", "train_other_500"),
    "100": ("train_clean_100",),
}
HELD_OUT = ("dev", "dev_clean", "dev_other", "test_clean", "test_other")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The known counts are those of the miniature; archives have no known hash."""
    small = {name: parts.Part(0, "", count) for name, count in COUNTS.items()}
    for module in (parts, prepare):
        monkeypatch.setattr(module, "PARTS", small)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_librispeech(tmp_path / "corpus", tones())


def _main(root: Path, *more: str) -> int:
    return int(prepare.main(["--corpus", str(root), *more]))


def _tables(name: str) -> dict[str, list[str]]:
    folder = Path("data", name)
    return {p.name: p.read_text().splitlines() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("hours", ["960", "100"])
def test_the_folders_are_those_of_espnet(
    corpus: Path, hours: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _main(corpus, "--hours", hours) == 0
    made = sorted(path.name for path in Path("data").iterdir())
    assert made == sorted((*SETS[hours], *HELD_OUT))
    for name in made:
        tables = _tables(name)
        assert list(tables) == ["spk2gender", "spk2utt", "text", "utt2spk", "wav.scp"]
        for rows in tables.values():
            assert rows == sorted(rows, key=str.encode)
        owners = dict(row.split() for row in tables["utt2spk"])
        for row in tables["wav.scp"]:
            utterance, path = row.split(" ")
            reader, chapter, _ = utterance.split("-")
            assert owners[utterance] == f"{reader}-{chapter}"
            assert path.endswith(f"/{reader}/{chapter}/{utterance}.flac")
            assert soundfile.info(path).samplerate == 16000
        words = dict(row.split(" ", 1) for row in tables["text"])
        assert list(words) == list(owners)
        assert set(words.values()) <= set(SENTENCES)
        assert [row.split()[0] for row in tables["spk2gender"]] == sorted(
            set(owners.values()), key=str.encode
        )
        assert {row.split()[1] for row in tables["spk2gender"]} <= {"m", "f"}
    assert len(_tables("dev")["text"]) == COUNTS["dev-clean"] + COUNTS["dev-other"]
    assert f"dev-clean: {COUNTS['dev-clean']} utterances" in capfd.readouterr().out


def test_known_utterances_of_a_speaker(corpus: Path) -> None:
    assert _main(corpus, "--hours", "100") == 0
    first = _tables("dev_clean")
    assert first["utt2spk"][0] == "84-121300-0000 84-121300"
    assert first["spk2utt"] == [
        "84-121300 84-121300-0000 84-121300-0001 84-121300-0002"
    ]
    assert first["spk2gender"] == ["84-121300 f"]


def test_fewer_utterances_than_known_are_reported(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = max((corpus / "LibriSpeech/test-other").glob("*/*/*.flac"))
    transcript = next(last.parent.glob("*.trans.txt"))
    transcript.write_text("".join(transcript.read_text().splitlines(True)[:-1]))
    last.unlink()
    assert _main(corpus) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: test-other: 1 of 2 utterances")
    assert "--incomplete true" in error and not Path("data").exists()
    assert _main(corpus, "--incomplete", "true") == 0
    assert len(_tables("test_other")["text"]) == 1


def _lose_recording(chapter: Path) -> None:
    min(chapter.glob("*.flac")).unlink()


def _lose_transcript(chapter: Path) -> None:
    path = next(chapter.glob("*.trans.txt"))
    path.write_text("".join(path.read_text().splitlines(True)[1:]))


def _lose_words(chapter: Path) -> None:
    path = next(chapter.glob("*.trans.txt"))
    path.write_text(path.read_text().split(" ")[0] + "\n")


def _lose_transcripts(chapter: Path) -> None:
    next(chapter.glob("*.trans.txt")).unlink()


def _damage(chapter: Path) -> None:
    min(chapter.glob("*.flac")).write_bytes(b"no audio")


def _resample(chapter: Path) -> None:
    soundfile.write(min(chapter.glob("*.flac")), np.zeros(800), 8000, "PCM_16")


def _strange_folder(chapter: Path) -> None:
    (chapter / "../old").mkdir()


def _lose_reader(chapter: Path) -> None:
    path = chapter / "../../../SPEAKERS.TXT"
    kept = [line for line in path.read_text().splitlines(True) if line[:3] != "84 "]
    path.write_text("".join(kept))


def _lose_speakers(chapter: Path) -> None:
    (chapter / "../../../SPEAKERS.TXT").unlink()


def _garble_transcript(chapter: Path) -> None:
    next(chapter.glob("*.trans.txt")).write_bytes(b"84-121300-0000 CAF\xc9\n")


def _garble_speakers(chapter: Path) -> None:
    (chapter / "../../../SPEAKERS.TXT").write_bytes(b"84 | F | Ren\xe9e\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_lose_recording, "has no recording of 84-121300-0000: extract the part again"),
        (_lose_transcript, "has no transcript of 84-121300-0000"),
        (_lose_words, "84-121300-0000 has no words"),
        (_lose_transcripts, "84-121300.trans.txt is missing"),
        (_damage, "dev-clean: .*84-121300-0000.flac cannot be read"),
        (_resample, "84-121300-0000.flac has 8000 Hz and 1 channels"),
        (_strange_folder, "84/old is not a folder of LibriSpeech"),
        (_lose_reader, "SPEAKERS.TXT has no reader 84"),
        (_lose_speakers, "SPEAKERS.TXT is missing"),
        (_garble_transcript, "84-121300.trans.txt, line 1: not UTF-8 text"),
        (_garble_speakers, "SPEAKERS.TXT, line 1: not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_named(
    corpus: Path, capsys: pytest.CaptureFixture[str], damage: object, message: str
) -> None:
    assert callable(damage)
    damage(corpus / "LibriSpeech/dev-clean/84/121300")
    assert _main(corpus, "--incomplete", "true") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error), error


def test_libri_speech_itself_is_not_its_parent(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(corpus / "LibriSpeech") == 1
    error = capsys.readouterr().err
    assert f"not LibriSpeech itself: {corpus}" in error


@pytest.mark.slow
def test_archives_are_extracted_once_and_again_when_something_is_lost(
    tmp_path: Path,
) -> None:
    root = write_librispeech(tmp_path / "corpus", tones(), archives=True)
    assert sorted(path.name for path in root.iterdir()) == sorted(
        f"{name}.tar.gz" for name in COUNTS
    )
    assert _main(root) == 0
    before = _tables("train_960")
    recording = next((root / "LibriSpeech").glob("train-clean-100/*/*/*.flac"))
    written = recording.stat().st_mtime_ns
    assert _main(root) == 0
    assert recording.stat().st_mtime_ns == written
    recording.unlink()
    assert _main(root) == 0
    assert recording.is_file() and _tables("train_960") == before
    assert _main(root, "--remove_archive", "true") == 0
    assert not list(root.glob("*.gz"))
    assert _main(root) == 0 and _tables("train_960") == before


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server with the archives of a miniature."""
    shelf = write_librispeech(tmp_path / "shelf", tones(), archives=True)
    handler = partial(SimpleHTTPRequestHandler, directory=str(shelf))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_missing_parts_are_fetched_and_checked(
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = {}
    for name, count in COUNTS.items():
        data = (tmp_path / "shelf" / f"{name}.tar.gz").read_bytes()
        known[name] = parts.Part(len(data), hashlib.md5(data).hexdigest(), count)
    known["test-other"] = parts.Part(known["test-other"].size_bytes, "0" * 32, 2)
    for module in (parts, prepare):
        monkeypatch.setattr(module, "PARTS", known)
    root = tmp_path / "downloads"
    assert _main(root, "--hours", "100", "--data_url", server) == 1
    error = capsys.readouterr().err
    assert "test-other is not in" in error and "md5" in error
    assert "set LIBRISPEECH to the folder that contains it" in error
    good = hashlib.md5((tmp_path / "shelf/test-other.tar.gz").read_bytes()).hexdigest()
    known["test-other"] = parts.Part(known["test-other"].size_bytes, good, 2)
    assert _main(root, "--hours", "100", "--data_url", server) == 0
    assert not (root / "train-clean-360.tar.gz").exists()
    assert len(_tables("train_clean_100")["text"]) == COUNTS["train-clean-100"]


def _remove(part: str, root: Path) -> None:
    shutil.rmtree(root / "LibriSpeech" / part)


def test_a_folder_that_was_removed_is_fetched_or_extracted_again(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    shutil.copytree(tmp_path / "shelf", root)
    first = ("--hours", "100", "--remove_archive", "true", "--data_url", server)
    assert _main(root, *first) == 0
    before = _tables("dev_clean")
    assert not (root / "dev-clean.tar.gz").exists()
    known = dict(parts.PARTS)
    size = (tmp_path / "shelf/dev-clean.tar.gz").stat().st_size
    known["dev-clean"] = parts.Part(size, "", COUNTS["dev-clean"])
    for module in (parts, prepare):
        monkeypatch.setattr(module, "PARTS", known)
    for _ in range(2):
        _remove("dev-clean", root)
        assert _main(root, "--hours", "100", "--data_url", server) == 0
        assert _tables("dev_clean") == before
        assert (root / "dev-clean.tar.gz").is_file()


def test_room_is_looked_for_before_anything_is_fetched(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Usage:
        free = 12 * 2**20

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    sized = {name: parts.Part(2**20, "", count) for name, count in COUNTS.items()}
    monkeypatch.setattr(parts, "PARTS", sized)
    empty = corpus.parent / "downloads"
    assert _main(empty, "--data_url", "http://127.0.0.1:9") == 1
    printed = capsys.readouterr().err
    assert (
        "LibriSpeech needs about 14 MiB" in printed and "or set LIBRISPEECH" in printed
    )
    # Complete and partial downloads need no more space.
    (empty / "LibriSpeech").mkdir(parents=True)
    for part in ("dev-clean", "train-other-500"):
        (corpus / "LibriSpeech" / part).rename(empty / "LibriSpeech" / part)
    (empty / "dev-other.tar.gz").write_bytes(b"")
    (empty / "test-clean.tar.gz.part").write_bytes(bytes(2**19))
    Usage.free = 8 * 2**20
    assert _main(empty, "--data_url", "http://127.0.0.1:9") == 1
    # Four parts to be fetched and extracted, one to be extracted, less half a part.
    assert "LibriSpeech needs about 8 MiB" in capsys.readouterr().err


def test_an_archive_that_cannot_be_removed_is_named(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # In place of a folder of somebody else, which would not keep root from removing.
    (corpus / "dev-clean.tar.gz").mkdir()
    assert _main(corpus) == 0
    assert _main(corpus, "--remove_archive", "true") == 1
    printed = capsys.readouterr().err
    assert (
        "dev-clean.tar.gz cannot be removed (" in printed and printed.count("\n") == 1
    )


def test_text_for_language_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gzip.compress(b"A BANK CHECK\n\nWHO IS THERE\n")
    archive = tmp_path / "data/local/other_text/librispeech-lm-norm.txt.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(data)
    monkeypatch.setattr(prepare, "LM_BYTES", len(data))
    monkeypatch.setattr(prepare, "LM_SHA256", hashlib.sha256(data).hexdigest())
    prepare.prepare_lm_text(archive.parent)
    text = archive.parent / "text"
    assert text.read_text().splitlines() == [
        "librispeech_lng_00000001 A BANK CHECK",
        "librispeech_lng_00000003 WHO IS THERE",
    ]
    archive.unlink()
    prepare.prepare_lm_text(archive.parent)
    text.unlink()

    class Usage:
        free = len(data)

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(prepare.UserError, match="the text of --lm_text needs about"):
        prepare.prepare_lm_text(archive.parent)
    archive.write_bytes(data)
    with pytest.raises(prepare.UserError, match="other_text/text needs about"):
        prepare.prepare_lm_text(archive.parent)
    Usage.free = 10**9
    # A file can never be put in place of a folder.
    text.mkdir()
    with pytest.raises(prepare.UserError, match="other_text/text cannot be written: "):
        prepare.prepare_lm_text(archive.parent)
    assert sorted(path.name for path in text.parent.iterdir()) == [
        ".librispeech-lm-norm.txt.gz.checked",
        archive.name,
        "text",
    ]


def test_another_text_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "librispeech-lm-norm.txt.gz"
    archive.write_bytes(gzip.compress(b"A BANK CHECK\n" * 50))
    with pytest.raises(prepare.UserError, match=r"instead of 1,507,274,412"):
        prepare.prepare_lm_text(tmp_path)
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sets no model_conf.criterion_conf.teacher"),
        ("model_conf:\n", "sets no model_conf.criterion_conf.teacher"),
        ("- a\n", r"expected 'key: value' lines, not \['a'\]"),
        ("model_conf: 3\n", "expected 'key: value' lines, not 3"),
        ("model_conf: {criterion_conf: hkd}\n", "lines, not 'hkd'"),
        ("model_conf: [\n", "is not YAML"),
        ("# caf\xe9\n", "is not YAML"),
    ],
)
def test_a_configuration_that_names_no_teacher(
    tmp_path: Path, text: str, message: str
) -> None:
    config = tmp_path / "train.yaml"
    config.write_bytes(text.encode("latin-1"))
    with pytest.raises(wordpiece.UserError, match=f"train.yaml.* {message}"):
        wordpiece.write_tokenizer(config, tmp_path / "wordpiece")
    assert not (tmp_path / "wordpiece").exists()
