"""HSK's stage 1 from made-up packages: the folders, and repeats."""

from pathlib import Path

import hsk_fixture as fixture
import pytest
import soundfile

hsk_packages = fixture.load("hsk_packages")
hsk_prepare = fixture.load("hsk_prepare")
COUNT = 40


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both packages, known to the recipe, where an earlier run has left them."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    content = fixture.rows(COUNT)
    content[7] = fixture.row("hsk1-0007", "我来。", "wo3 lai2")
    wheel = fixture.wheel(folder / hsk_packages.SENTENCES.file, content)
    fixture.know(monkeypatch, "SENTENCES", wheel)
    deb = fixture.deb(tmp_path / "voice.deb").replace(folder / hsk_packages.VOICE.file)
    fixture.know(monkeypatch, "VOICE", deb)
    monkeypatch.chdir(tmp_path)
    return folder


def _tables(folder: Path) -> dict[str, list[str]]:
    return {p.name: p.read_text().splitlines() for p in sorted(folder.iterdir())}


def test_folders_are_as_kaldi_wants_them(
    downloads: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert hsk_prepare.main([]) == 0
    seen: dict[str, str] = {}
    for name in ("train", "dev", "test"):
        tables = _tables(Path("data", name))
        assert list(tables) == ["pinyin", "spk2utt", "text", "utt2spk", "wav.scp"]
        for rows in tables.values():
            assert rows == sorted(rows, key=str.encode)
        ids = [row.split()[0] for row in tables["text"]]
        assert ids
        for other in ("wav.scp", "utt2spk", "pinyin"):
            assert [row.split()[0] for row in tables[other]] == ids
        assert tables["spk2utt"] == [" ".join(["gcin3", *ids])]
        for row, spoken in zip(tables["text"], tables["pinyin"]):
            utt_id, words = row.split()
            assert utt_id.startswith("gcin3-hsk1-")
            assert len(spoken.split()) == len(words) + 1
            seen[utt_id] = words
        for row in tables["wav.scp"]:
            info = soundfile.info(row.split()[1])
            assert (info.samplerate, info.channels) == (16_000, 1)
            assert info.subtype == "PCM_16"
    assert len(seen) == len(set(seen.values())) == COUNT - 1
    left_out = Path("data/left_out.tsv").read_text()
    assert left_out == "hsk1-0007\tlai2 is not recorded\n"
    said = capfd.readouterr().out
    assert "train: " in said and "0 not in train" in said


@pytest.mark.slow
def test_a_repeat_makes_only_what_is_missing(downloads: Path) -> None:
    assert hsk_prepare.main([]) == 0
    audio = sorted(hsk_prepare.audio_folder(Path("downloads")).iterdir())
    assert len(audio) == COUNT - 1
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in audio}
    tables = {n: _tables(Path("data", n)) for n in ("train", "dev", "test")}
    audio[3].unlink()
    Path("data/train/text").write_text("half a li")
    assert hsk_prepare.main([]) == 0
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in audio}
    assert [path for path in audio if after[path] != before[path]] == [audio[3]]
    assert after[audio[3]][1] == before[audio[3]][1]
    assert {n: _tables(Path("data", n)) for n in tables} == tables
    assert not list(Path().rglob("*.part*"))


def test_changed_code_makes_new_audio(
    downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hsk_prepare.audio_folder(Path("downloads"))
    other = tmp_path / "hsk_voice.py"
    source = Path(hsk_prepare.hsk_voice.__file__).read_text(encoding="utf-8")
    other.write_text(source.replace("_HALF_THIRD = 0.7", "_HALF_THIRD = 0.6"))
    monkeypatch.setattr(hsk_prepare.hsk_voice, "__file__", str(other))
    assert hsk_prepare.audio_folder(Path("downloads")) != first


@pytest.mark.slow
def test_a_subset_leaves_the_complete_set(downloads: Path) -> None:
    assert hsk_prepare.main([]) == 0
    complete = _tables(Path("data/train"))
    assert hsk_prepare.main(["--subset", "7"]) == 0
    part = _tables(Path("data/train_7"))
    assert len(part["text"]) == 7
    assert set(part["text"]) < set(complete["text"])
    assert _tables(Path("data/train")) == complete
    with pytest.raises(SystemExit):
        hsk_prepare.main(["--subset", "-1"])


def test_a_package_that_cannot_be_had_is_one_line(
    downloads: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = downloads / hsk_packages.VOICE.file
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setenv("PATH", "")
    assert hsk_prepare.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: apt-get could not download gcin-voice")
    assert error.count("\n") == 1
    assert not Path("data").exists()
