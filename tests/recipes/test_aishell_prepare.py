"""AISHELL-1's stage 1 on a miniature: finding, fetching, unpacking, the folders."""

import errno
import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import aishell_fixture as fixture
import pytest
from miniature.aishell import Miniature, write_aishell
from miniature.speech import tones

corpus = fixture.load("aishell_corpus")
prepare = fixture.load("aishell_prepare")

CLIPS = tones(4)
SETS = ("train", "dev", "test")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AISHELL", raising=False)


def _tables(folder: Path) -> dict[str, dict[str, list[str]]]:
    return {
        name: {
            path.name: path.read_text(encoding="utf-8").splitlines()
            for path in sorted((folder / name).iterdir())
        }
        for name in SETS
    }


def _check(made: Miniature, root: str) -> None:
    """data/ has what the miniature was made of, in the form of ESPnet's recipe."""
    for name, tables in _tables(Path("data")).items():
        assert list(tables) == ["spk2utt", "text", "utt2spk", "wav.scp"]
        texts, speakers = made.texts[name], made.speakers[name]
        ids = sorted(texts)
        assert tables["text"] == [f"{utt} {texts[utt]}" for utt in ids]
        assert tables["utt2spk"] == [f"{utt} {speakers[utt]}" for utt in ids]
        assert tables["wav.scp"] == [
            f"{utt} {root}/wav/{name}/{speakers[utt]}/{utt}.wav" for utt in ids
        ]
        assert all(Path(line.split()[1]).is_file() for line in tables["wav.scp"])
        first = sorted(set(speakers.values()))[0]
        theirs = [utt for utt in ids if speakers[utt] == first]
        assert tables["spk2utt"][0] == f"{first} {' '.join(theirs)}"
        assert not set(ids) & {*made.wordless, *made.soundless}


def _known(made: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {
        name: (len(made.texts[name]), len(set(made.speakers[name].values())))
        for name in SETS
    }
    monkeypatch.setattr(prepare, "KNOWN", counts)
    monkeypatch.setattr(prepare, "KNOWN_WORDLESS", len(made.wordless))


def _pin_archives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    for archive in corpus.ARCHIVES:
        content = (folder / archive.name).read_bytes()
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        pinned.append(corpus.Archive(archive.name, len(content), digest))
    monkeypatch.setattr(corpus, "ARCHIVES", tuple(pinned))


@pytest.mark.parametrize("inside", [False, True])
def test_a_tree_of_the_user_is_left_as_it_is(inside: bool) -> None:
    made = write_aishell(Path("corpus"), CLIPS)
    before = sorted(Path("corpus").rglob("*"))
    named = "corpus/data_aishell" if inside else "corpus"
    assert prepare.main(["--corpus", named]) == 0
    _check(made, "corpus/data_aishell")
    assert sorted(Path("corpus").rglob("*")) == before


def test_archives_of_speakers_are_unpacked_and_kept() -> None:
    made = write_aishell(Path("corpus"), CLIPS, state="speakers")
    assert prepare.main(["--corpus", "corpus"]) == 0
    _check(made, "corpus/data_aishell")
    assert len(list(Path("corpus/data_aishell/wav").glob("*.tar.gz"))) == 6


@pytest.mark.parametrize("remove", [False, True])
def test_archives_of_openslr_are_unpacked(
    monkeypatch: pytest.MonkeyPatch, remove: bool
) -> None:
    made = write_aishell(Path("downloads"), CLIPS, state="tgz")
    _pin_archives(Path("downloads"), monkeypatch)
    more = ["--remove_archive"] if remove else []
    assert prepare.main(more) == 0
    _check(made, "downloads/data_aishell")
    wav = Path("downloads/data_aishell/wav")
    # Their content is in the outer archive still, as in ESPnet's recipe.
    assert not list(wav.glob("*.tar.gz")) and not list(wav.glob(".*"))
    assert (wav.parent / ".complete").is_file()
    assert Path("downloads/resource_aishell/lexicon.txt").is_file()
    assert Path("downloads/data_aishell.tgz").exists() is not remove
    tables = _tables(Path("data"))
    assert prepare.main(more) == 0
    assert _tables(Path("data")) == tables


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """An HTTP server of the folder ``mirror``."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_what_is_not_there_is_fetched(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = write_aishell(Path("mirror"), CLIPS, state="tgz")
    _pin_archives(Path("mirror"), monkeypatch)
    assert prepare.main(["--data_url", mirror]) == 0
    _check(made, "downloads/data_aishell")
    Path("empty").mkdir()
    assert prepare.main(["--corpus", "empty", "--data_url", mirror]) == 0
    _check(made, "empty/data_aishell")


def test_too_little_room_is_reported_before_anything_is_fetched(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 30 * 10**9

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    printed = _error(capfd, "--data_url", "http://127.0.0.1:9")
    assert "AISHELL-1 needs about 35666 MiB in downloads" in printed
    assert "set AISHELL to another folder" in printed


def test_an_interrupted_unpacking_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_aishell(Path("downloads"), CLIPS, state="tgz")
    _pin_archives(Path("downloads"), monkeypatch)
    extract = corpus.extract_tar
    left = [4]

    def killed(archive: Path, folder: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        extract(archive, folder)

    monkeypatch.setattr(corpus, "extract_tar", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare.main([])
    assert not Path("data").exists()
    left[0] = 100
    assert prepare.main([]) == 0
    _check(made, "downloads/data_aishell")


def test_an_outer_archive_cut_off_in_the_middle_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = write_aishell(Path("downloads"), CLIPS, state="tgz")
    _pin_archives(Path("downloads"), monkeypatch)
    corpus.extract_tar(Path("downloads/data_aishell.tgz"), Path("downloads"))
    # What a kill leaves: some members, no mark.
    Path("downloads/.data_aishell.tgz.extracted").unlink()
    Path("downloads/data_aishell/wav/S0764.tar.gz").unlink()
    assert prepare.main([]) == 0
    _check(made, "downloads/data_aishell")


@pytest.mark.parametrize("remove", [False, True])
def test_a_corpus_that_was_removed_as_the_message_says_comes_back(
    mirror: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    remove: bool,
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = write_aishell(Path("mirror"), CLIPS, state="tgz")
    _pin_archives(Path("mirror"), monkeypatch)
    more = ["--data_url", mirror, *(["--remove_archive"] if remove else [])]
    assert prepare.main(more) == 0
    shutil.rmtree("downloads/data_aishell/wav/train")
    capfd.readouterr()
    printed = _error(capfd, *more)
    assert "wav/train has no recordings with transcript" in printed
    assert "remove downloads/data_aishell, then it is unpacked or downloaded" in printed
    shutil.rmtree("downloads/data_aishell")
    assert prepare.main(more) == 0
    _check(made, "downloads/data_aishell")
    Path("downloads/data_aishell", corpus.TRANSCRIPT).unlink()
    capfd.readouterr()
    assert "is missing: remove downloads/data_aishell, then" in _error(capfd, *more)


def test_a_corpus_of_others_is_not_written(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_aishell(Path("downloads"), CLIPS, state="tgz")
    _pin_archives(Path("downloads"), monkeypatch)
    assert prepare.main([]) == 0
    mark = Path("downloads/data_aishell/.complete")
    os.utime(mark, (1, 1))
    assert prepare.main([]) == 0
    assert mark.stat().st_mtime == 1
    mark.unlink()

    # Permissions would not keep root from writing.
    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refused)
    assert prepare.main([]) == 0
    assert not mark.exists()
    monkeypatch.setattr(Path, "unlink", refused)
    capfd.readouterr()
    printed = _error(capfd, "--remove_archive")
    assert "downloads/data_aishell.tgz cannot be removed (Permission denied)" in printed


def test_unpacked_by_kaldi(monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_aishell(Path("downloads"), CLIPS)
    Path("downloads/data_aishell/.complete").touch()
    Path("downloads/data_aishell.tgz").write_bytes(b"not even looked at")
    assert prepare.main([]) == 0
    _check(made, "downloads/data_aishell")


def test_another_count_is_a_warning(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_aishell(Path("corpus"), CLIPS)
    assert prepare.main(["--corpus", "corpus"]) == 0
    printed = capfd.readouterr()
    assert "data/train: 9 utterances of 3 speakers" in printed.out
    assert (
        "WARNING: data/train has 9 utterances of 3 speakers, AISHELL-1 has "
        "120,098 utterances of 340 speakers" in printed.err
    )
    assert "WARNING: data/dev has 4" in printed.err
    assert "WARNING: data/test has 3" in printed.err
    assert (
        "1 recordings have no transcript, in AISHELL-1 there are 325: " in printed.err
    )
    assert f"there are 325: {made.wordless[0]}" in printed.err
    assert f"transcript but no recording: {made.soundless[0]}" in printed.err
    made.soundless.clear()
    _known(made, monkeypatch)
    assert prepare.main(["--corpus", "corpus"]) == 0
    assert capfd.readouterr().err.count("WARNING") == 1  # the soundless one


def test_known_counts_are_those_of_the_corpus() -> None:
    assert sum(count for count, _ in prepare.KNOWN.values()) == 141_600
    assert 141_600 + prepare.KNOWN_WORDLESS == 141_925
    assert sum(speakers for _, speakers in prepare.KNOWN.values()) == 400


def _error(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert prepare.main(list(arguments)) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_bad_input(capfd: pytest.CaptureFixture[str]) -> None:
    assert "AISHELL=nowhere: no such folder" in _error(capfd, "--corpus", "nowhere")
    assert "AISHELL=my corpus: wav.scp cannot contain a path with a blank" in _error(
        capfd, "--corpus", "my corpus"
    )
    write_aishell(Path("corpus"), CLIPS)
    data = Path("corpus/data_aishell")
    wav = data / "wav/dev/S0724/BAC009S0724W0122.wav"
    (data / "wav/test/S0764" / wav.name).write_bytes(wav.read_bytes())
    assert "BAC009S0724W0122 occurs twice" in _error(capfd, "--corpus", "corpus")
    for path in (data / "wav/test").glob("*/*.wav"):
        path.unlink()
    assert "wav/test has no recordings" in _error(capfd, "--corpus", "corpus")
    transcript = data / "transcript/aishell_transcript_v0.8.txt"
    transcript.write_text("BAC009S0002W0122\n")
    assert "BAC009S0002W0122 have no words" in _error(capfd, "--corpus", "corpus")
    transcript.write_bytes("BAC009S0002W0122 好\n".encode("gb18030"))
    assert "convert the file to UTF-8" in _error(capfd, "--corpus", "corpus")
    assert not Path("data").exists()


@pytest.mark.parametrize("by", ["environment", "db.sh", "default"])
def test_the_shell_finds_the_corpus(tmp_path: Path, by: str) -> None:
    recipe = fixture.lay_out(tmp_path / "recipe")
    environment = {**os.environ, "PYTHON": sys.executable}
    where = recipe / "downloads" if by == "default" else tmp_path / "my$corpus"
    if by == "environment":
        environment["AISHELL"] = str(where)
    elif by == "db.sh":
        (recipe / "db.sh").write_text(f"AISHELL='{where}'\n")
    write_aishell(where, CLIPS)
    done = subprocess.run(
        ["bash", "local/data.sh"],
        cwd=recipe,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = "downloads" if by == "default" else str(where)
    line = (recipe / "data/test/wav.scp").read_text().splitlines()[0]
    assert line.startswith(f"BAC009S0764W0122 {shown}/data_aishell/wav/test/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--remove_archive", "yes"], "--remove_archive yes: choose true or false"),
        (["--nonsense", "1"], "has no option --nonsense"),
        (["--data_url"], "--data_url needs a value"),
        (["corpus"], "has no option corpus"),
    ],
)
def test_the_shell_refuses(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        ["bash", str(fixture.RECIPE / "local/data.sh"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_nothing_to_do_after_stage_4() -> None:
    done = subprocess.run(
        ["bash", str(fixture.RECIPE / "local/data.sh"), "--asr_data_dir", "dump/raw"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "nothing to do for dump/raw" in done.stdout
