"""The Brown corpus as text without speech."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from fotaq_fixture import load

brown = load("brown_text")

CONTENT = """

\tThe/at jury's/nn$ said/vbd ``/`` no/at ''/'' ./.
\tIn/in 1961/cd it/pps ended/vbd ./.
\t--/-- ./.
\tHard-fought/jj ,/, didn't/dod* it/pps ?/.
"""


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small package of the right name and hash."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("cb02", "ca01", "README", "cats.txt", "CONTENTS"):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(CONTENT)
            tar.addfile(member, io.BytesIO(CONTENT.encode()))
    content = packed.getvalue()
    monkeypatch.setattr(brown, "SHA256", hashlib.sha256(content).hexdigest())
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / brown.FILE).write_bytes(content)
    return folder


def run(downloads: Path) -> tuple[int, Path]:
    data = downloads.with_name("data")
    code = brown.main(["--downloads", str(downloads), "--data", str(data)])
    return code, data / "brown/text"


def test_sentences_are_written_like_transcripts(downloads: Path) -> None:
    """Those with digits or without words are left out; names stay unique."""
    code, path = run(downloads)
    assert code == 0
    expected = [("003", "THE JURY'S SAID NO"), ("006", "HARD FOUGHT DIDN'T IT")]
    assert path.read_text().splitlines() == [
        f"brown-{part}-{number} {words}"
        for part in ("ca01", "cb02")
        for number, words in expected
    ]


@pytest.mark.parametrize("damage", ["other", "missing"])
def test_one_line_without_the_package(
    downloads: Path,
    damage: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = downloads / brown.FILE
    if damage == "other":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
        monkeypatch.setenv("PATH", "")
    assert run(downloads)[0] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and f"put {brown.FILE}" in line
