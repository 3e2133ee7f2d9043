"""The lines spoken in the game, from the script members of the archive.

Three kinds of members contain text: dialogues (``*.DOG``), cut scenes (``*.CUT``) and
the hero's remarks (``QUEEN2.JAS``). The name of a clip follows from the position of its
line, so no list is needed to pair text and recordings. The text is in code page 437;
all integers are big-endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fotaq_archive import Archive, ArchiveError

BANK_HEADER = 20
LEVEL_BYTES = 96
DIALOGUE_HEADER = 32

# QUEEN2.JAS begins with the hero's remarks on things; a later block has his standard
# replies. Clips number the replies first: JOE0001 to JOE0040.
REPLIES = 40
REPLIES_FIRST_LINE = 1187

HERO = "JOE"
UNKNOWN = "UNKNOWN"

_CODE = re.compile(r"\*(GD|GM|XY.{0,11}|[0-9A-Z]{2})|\*")
_NO_CUT = ("GD", "GM")
_TRAILING_DIGITS = re.compile(r"\d+$")


@dataclass(frozen=True)
class Line:
    """One recorded segment of a line.

    ``clip`` is the name of the audio member without extension, ``speaker`` the
    character or ``UNKNOWN``, ``text`` the words shown on the screen.
    """

    clip: str
    speaker: str
    text: str


def split_segments(text: str) -> list[str]:
    """Cut a line at its stage directions; segment n of the clip name is item n-1.

    ``*GD`` and ``*GM`` do not cut; ``*XY`` has eleven more characters; a single
    asterisk is not a direction and is removed. Empty segments keep their number.
    """
    segments = [""]
    position = 0
    for match in _CODE.finditer(text):
        segments[-1] += text[position : match.start()]
        position = match.end()
        code = match.group(1)
        if code is not None and code not in _NO_CUT:
            segments.append("")
    segments[-1] += text[position:]
    return segments


def _string(data: bytes, offset: int, align: int, where: str) -> tuple[str, int]:
    """Read a counted string; return it with the offset of what follows."""
    if offset >= len(data):
        raise ArchiveError(f"{where}: a text is outside the member")
    size = data[offset]
    offset += 1
    if size == 0:
        return "", offset
    if offset + size > len(data):
        raise ArchiveError(f"{where}: a text is truncated")
    text = data[offset : offset + size].decode("cp437")
    offset += size
    return text, offset + -offset % align


def _body(archive: Archive, member: str, least: int) -> bytes:
    data = archive.read(member)[BANK_HEADER:]
    if len(data) < least:
        raise ArchiveError(f"{member}: too short for its header")
    return data


def dialogue(archive: Archive, member: str) -> Iterator[Line]:
    """Yield the segments of one ``*.DOG`` member.

    A conversation begins with Joe's ``SSSSJ`` line, or on a later visit with his
    ``XXXXJ`` line, which the partner answers with ``XXXXP``.
    """
    data = _body(archive, member, DIALOGUE_HEADER)
    levels, _, key, joes, partners = struct.unpack_from(">5h", data)
    joe_offset = DIALOGUE_HEADER + abs(levels) * LEVEL_BYTES
    partner_offset, _, again_offset = struct.unpack_from(">3H", data, 22)
    partner = _TRAILING_DIGITS.sub("", member.rsplit(".", 1)[0])

    def spoken(prefix: str, side: str, text: str) -> Iterator[Line]:
        speaker = HERO if side == "J" else partner
        for number, segment in enumerate(split_segments(text), 1):
            yield Line(f"{key:02d}{prefix}{side}{number:X}", speaker, segment)

    for side, offset, count, first in (
        ("J", joe_offset, joes, "SSSS"),
        ("P", partner_offset, partners, ""),
    ):
        for _ in range(count):
            if offset + 4 > len(data):
                raise ArchiveError(f"{member}: its list of lines is truncated")
            (identity,) = struct.unpack_from(">H", data, offset + 2)
            text, offset = _string(data, offset + 4, 4, member)
            if identity == 0:
                # The partner's line 0 repeats Joe's XXXXJ line, which is read below.
                if first:
                    yield from spoken(first, side, text)
            else:
                yield from spoken(f"{identity:04X}", side, text)
    answer, offset = _string(data, again_offset, 2, member)
    greeting, _ = _string(data, offset, 2, member)
    yield from spoken("XXXX", "P", answer)
    yield from spoken("XXXX", "J", greeting)


def cut_scene(archive: Archive, member: str) -> Iterator[Line]:
    """Yield the segments of one ``*.CUT`` member; the script names no speaker."""
    data = _body(archive, member, 10)
    (count,) = struct.unpack_from(">h", data, 2)
    (offset,) = struct.unpack_from(">H", data, 8)
    scene = member.rsplit(".", 1)[0][:5].ljust(5, "_")
    for line in range(abs(count) + 1):
        text, offset = _string(data, offset, 2, member)
        for number, segment in enumerate(split_segments(text), 1):
            yield Line(f"{scene}{line:02d}{number:X}", UNKNOWN, segment)


def remarks(
    archive: Archive,
    member: str = "QUEEN2.JAS",
    first_reply: int = REPLIES_FIRST_LINE,
) -> Iterator[Line]:
    """Yield what the hero says about things: clips ``JOEnnnn`` plus segment.

    Clips 1 to 40 are the standard replies (from line ``first_reply``, counted from 0);
    clip n > 40 is line n - 41 of the member.
    """
    lines = archive.read(member).decode("cp437").split("\r\n")
    numbered = [*enumerate(lines[first_reply : first_reply + REPLIES], 1)]
    numbered += enumerate(lines[:first_reply], REPLIES + 1)
    for number, text in numbered:
        for segment_number, segment in enumerate(split_segments(text), 1):
            yield Line(f"JOE{number:04d}{segment_number:X}", HERO, segment)


def spoken_lines(archive: Archive) -> dict[str, Line]:
    """Return every line of the script by the name of its clip."""
    lines: dict[str, Line] = {}
    for member in archive.names("DOG"):
        lines.update((line.clip, line) for line in dialogue(archive, member))
    for member in archive.names("CUT"):
        lines.update((line.clip, line) for line in cut_scene(archive, member))
    lines.update((line.clip, line) for line in remarks(archive))
    return lines
