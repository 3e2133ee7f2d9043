"""FOTAQ's stage 1 from a made archive: the folders, and repeats."""

from pathlib import Path

import fotaq_fixture as fixture
import pytest
import soundfile

fotaq_archive = fixture.load("fotaq_archive")
fotaq_prepare = fixture.load("fotaq_prepare")
fotaq_text = fixture.load("fotaq_text")

WORDS = [f"Line number {chr(65 + n)} of the {chr(66 + n)} scene" for n in range(24)]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete archive with 24 cut-scene clips, known to the recipe."""
    members = {
        "C1.CUT": fixture.cut_scene(["", *WORDS]),
        "QUEEN2.JAS": fixture.remarks(["A box*03"], ["No way*03"]),
        "JOE00011.SB": fixture.tone(1.0, 500.0),
        "MUSIC.SB": b"no line, never opened",
    }
    for n in range(1, 25):
        members[f"C1___{n:02d}1.SB"] = fixture.tone(0.6 + n / 50, 200.0 + n)
    content = fixture.pack(members)
    path = tmp_path / "queen.1c"
    path.write_bytes(content)
    monkeypatch.setattr(fotaq_archive, "ARCHIVE_SIZE", len(content))
    digest = fotaq_archive.sha256_of(path)
    monkeypatch.setattr(fotaq_archive, "ARCHIVE_SHA256", digest)
    monkeypatch.setattr(
        fotaq_text.remarks, "__defaults__", ("QUEEN2.JAS", fixture.FIRST_REPLY)
    )
    monkeypatch.chdir(tmp_path)
    return path


def _run(archive: Path, *more: str) -> int:
    return int(fotaq_prepare.main(["--fotaq_archive", str(archive), *more]))


def _tables(folder: Path) -> dict[str, list[str]]:
    return {p.name: p.read_text().splitlines() for p in sorted(folder.iterdir())}


def test_folders_are_as_kaldi_wants_them(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(archive) == 0
    seen: dict[str, str] = {}
    for name in ("train", "dev", "test"):
        tables = _tables(Path("data", name))
        assert list(tables) == ["spk2utt", "text", "utt2spk", "wav.scp"]
        for rows in tables.values():
            assert rows == sorted(rows, key=str.encode)
        ids = [row.split()[0] for row in tables["text"]]
        assert ids == [row.split()[0] for row in tables["wav.scp"]]
        owners = dict(row.split() for row in tables["utt2spk"])
        assert list(owners) == ids
        for row in tables["spk2utt"]:
            speaker, *members = row.split()
            assert members == [i for i in ids if owners[i] == speaker]
        for row in tables["text"]:
            utt_id, words = row.split(maxsplit=1)
            assert utt_id.startswith(owners[utt_id] + "-")
            seen[utt_id] = words
        for row in tables["wav.scp"]:
            info = soundfile.info(row.split()[1])
            assert (info.samplerate, info.channels) == (11025, 1)
    assert seen.pop("JOE-JOE00011") == "NO WAY"
    assert sorted(seen.values()) == sorted(words.upper() for words in WORDS)
    assert "decoded 25 of 25 clips" in capsys.readouterr().out


def test_a_repeat_changes_nothing_and_mends_what_is_broken(archive: Path) -> None:
    assert _run(archive) == 0
    files = [p for p in Path().rglob("*") if p.is_file()]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}
    assert _run(archive) == 0
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files} == before
    Path("data/train/text").write_text("half a li")
    lost = next(Path("downloads/flac").iterdir())
    lost.unlink()
    assert _run(archive) == 0
    assert {p: p.read_bytes() for p in files} == {p: c for p, (_, c) in before.items()}
    assert not list(Path().rglob("*.partial"))


def test_a_subset_leaves_the_complete_set(archive: Path) -> None:
    assert _run(archive) == 0
    complete = _tables(Path("data/train"))
    assert _run(archive, "--subset", "7") == 0
    part = _tables(Path("data/train_7"))
    assert len(part["text"]) == 7
    assert set(part["text"]) < set(complete["text"])
    assert _tables(Path("data/train")) == complete
    with pytest.raises(SystemExit):
        _run(archive, "--subset", "-1")


@pytest.mark.parametrize("missing", [True, False])
def test_a_bad_archive_is_one_line(
    archive: Path, capsys: pytest.CaptureFixture[str], missing: bool
) -> None:
    if missing:
        archive.unlink()
    else:
        archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    assert _run(archive) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(archive) in error
    assert not Path("data").exists()


def test_a_clip_that_is_no_audio_is_named(archive: Path) -> None:
    data = archive.read_bytes()
    start = fotaq_archive.Archive(data).members["C1___051.SB"].offset
    size = fotaq_archive.Archive(data).members["C1___051.SB"].size
    broken = data[:start] + b"\0" * size + data[start + size :]
    with pytest.raises(fotaq_archive.ArchiveError, match="clip C1___051"):
        fotaq_prepare.decode_clips(fotaq_archive.Archive(broken), Path("flac"))
