"""The archive of FOTAQ: its table, the Debian package, damage of every kind."""

import hashlib
import io
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import fotaq_fixture as fixture
import pytest

fotaq_archive = fixture.load("fotaq_archive")
fotaq_fetch = fixture.load("fotaq_fetch")
Archive, ArchiveError = fotaq_archive.Archive, fotaq_archive.ArchiveError

MEMBERS = {"A.DOG": b"dialogue", "B_2.SB": b"sound", "DATA": b""}


def test_members_are_read_back() -> None:
    archive = Archive(fixture.pack(MEMBERS))
    assert {name: archive.read(name) for name in archive.members} == MEMBERS
    assert archive.names("SB") == ["B_2.SB"]
    with pytest.raises(ArchiveError, match=r"no member C\.SB"):
        archive.read("C.SB")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "not a queen.1c"),
        (lambda data: b"RIFF" + data[4:], "not a queen.1c"),
        (lambda data: data[:30], "the table of 3 members is truncated"),
        (lambda data: data[:-2], "member B_2.SB is truncated"),
        (lambda data: data.replace(b"A.DOG", b"../AB"), "name of member 0 is invalid"),
    ],
)
def test_damage_is_named(damage: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        Archive(damage(fixture.pack(MEMBERS)))


def test_verify_names_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queen.1c"
    with pytest.raises(ArchiveError, match="no such file"):
        fotaq_archive.verify(path)
    path.write_bytes(fixture.pack(MEMBERS))
    with pytest.raises(ArchiveError, match="bytes instead of 54108887"):
        fotaq_archive.verify(path)
    monkeypatch.setattr(fotaq_archive, "ARCHIVE_SIZE", path.stat().st_size)
    with pytest.raises(ArchiveError, match="SHA-256"):
        fotaq_archive.verify(path)
    digest = fotaq_archive.sha256_of(path)
    monkeypatch.setattr(fotaq_archive, "ARCHIVE_SHA256", digest)
    fotaq_archive.verify(path)


def _deb(content: bytes, name: str, suffix: str = "xz") -> bytes:
    payload = io.BytesIO()
    with tarfile.open(fileobj=payload, mode="w:xz") as tar:
        for member, data in (("./../outside", b"no"), (name, content)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out = b"!<arch>\n"
    for member, data in (
        ("debian-binary", b"2.0\nx"),
        (f"data.tar.{suffix}", payload.getvalue()),
    ):
        out += f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out


RANDOM = random.Random(0).randbytes(4000)  # does not compress
GAME = "./usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"


def test_deb_gives_the_one_file_and_nothing_else(tmp_path: Path) -> None:
    deb = tmp_path / "inner" / "game.deb"
    deb.parent.mkdir()
    deb.write_bytes(_deb(b"game" * 1000, GAME))
    assert fotaq_archive.is_deb(deb)
    fotaq_archive.extract_from_deb(deb, tmp_path / "inner" / "queen.1c")
    assert (tmp_path / "inner" / "queen.1c").read_bytes() == b"game" * 1000
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "game.deb",
        "inner",
        "queen.1c",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_deb(b"game", "./usr/other"), "no queen.1c"),
        (_deb(RANDOM, GAME)[:-900], "damaged Debian package"),
        (_deb(b"game", GAME)[:70], "truncated"),
        (_deb(b"game", GAME, "zst"), "dpkg-deb -x"),
    ],
)
def test_bad_debs_leave_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    deb = tmp_path / "game.deb"
    deb.write_bytes(content)
    with pytest.raises(ArchiveError, match=message):
        fotaq_archive.extract_from_deb(deb, tmp_path / "queen.1c")
    assert [p.name for p in tmp_path.iterdir()] == ["game.deb"]


def _know(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Make ``content`` the release that the recipe knows."""
    monkeypatch.setattr(fotaq_archive, "ARCHIVE_SIZE", len(content))
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fotaq_archive, "ARCHIVE_SHA256", digest)


def test_given_archive_or_deb_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = fixture.pack(MEMBERS)
    _know(monkeypatch, content)
    game = tmp_path / "queen.1c"
    game.write_bytes(content)
    downloads = tmp_path / "downloads"
    assert fotaq_fetch.obtain(game, downloads) == game
    assert not downloads.exists()
    deb = tmp_path / "game.deb"
    deb.write_bytes(_deb(content, GAME))
    kept = fotaq_fetch.obtain(deb, downloads)
    assert kept.read_bytes() == content
    assert deb.is_file()
    assert fotaq_fetch.obtain(None, downloads) == kept
    with pytest.raises(ArchiveError, match=r"--fotaq_archive .*no such file"):
        fotaq_fetch.obtain(tmp_path / "absent", downloads)


def _apt(folder: Path, body: str) -> str:
    apt = folder / "apt-get"
    apt.write_text(f"#!/bin/bash\n{body}\n")
    apt.chmod(0o755)
    return str(apt)


def test_apt_is_asked_again_after_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = fixture.pack(MEMBERS)
    _know(monkeypatch, content)
    (tmp_path / "source.deb").write_bytes(_deb(content, GAME))
    apt = _apt(
        tmp_path,
        f'echo "$*" >> {tmp_path}/calls\n'
        f"[ $1 = update ] && {{ touch {tmp_path}/updated; exit; }}\n"
        f"[ -e {tmp_path}/updated ] || exit 100\n"
        f"cp {tmp_path}/source.deb $2_1.deb",
    )
    monkeypatch.setattr(fotaq_fetch.shutil, "which", lambda name: apt)
    kept = fotaq_fetch.obtain(None, tmp_path / "downloads")
    assert kept.read_bytes() == content
    assert [p.name for p in kept.parent.iterdir()] == ["queen.1c"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["download", "update", "download"]


def test_without_apt_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fotaq_fetch.shutil, "which", lambda name: None)
    with pytest.raises(ArchiveError, match=r"no apt-get.*--fotaq_archive PATH"):
        fotaq_fetch.obtain(None, tmp_path / "downloads")
    apt = _apt(tmp_path, 'echo "first"; echo "E: Unable to locate"; exit 100')
    monkeypatch.setattr(fotaq_fetch.shutil, "which", lambda name: apt)
    with pytest.raises(ArchiveError, match="E: Unable to locate") as caught:
        fotaq_fetch.obtain(None, tmp_path / "downloads")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_table_of_a_real_size_is_not_read_past_its_end() -> None:
    data = bytearray(fixture.pack(MEMBERS))
    struct.pack_into(">H", data, 0x0D, 60_000)
    with pytest.raises(ArchiveError, match="60000 members is truncated"):
        Archive(bytes(data))
