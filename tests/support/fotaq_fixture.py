"""A small archive in the format of ``queen.1c``, built from nothing of the game."""

import importlib
import io
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile

RECIPE = Path(__file__).parents[2] / "egs2" / "fotaq" / "asr_hkd"
LOCAL = RECIPE / "local"

BANK = b"\0" * 20
FIRST_REPLY = 5


def load(name: str) -> ModuleType:
    """Import a module of the recipe's ``local/``."""
    if str(LOCAL) not in sys.path:
        sys.path.insert(0, str(LOCAL))
    return importlib.import_module(name)


def pack(members: dict[str, bytes]) -> bytes:
    """Return an archive with these members."""
    head = b"QTBL" + b"\0" * 9 + struct.pack(">H", len(members))
    offset = len(head) + 21 * len(members)
    table, body = b"", b""
    for name, data in members.items():
        table += struct.pack(">12sBII", name.encode(), 1, offset + len(body), len(data))
        body += data
    return head + table + body


def counted(text: str, align: int, start: int) -> bytes:
    """Return a counted string that begins at ``start``, with its padding."""
    data = bytes([len(text)]) + text.encode("cp437")
    return data + b"\0" * (-(start + len(data)) % align if text else 0)


def dialogue(
    key: int, joe: dict[int, str], partner: dict[int, str], again: tuple[str, str]
) -> bytes:
    """Return a ``*.DOG`` member with one level."""
    data = bytearray(32 + 96)

    def add(lines: dict[int, str]) -> int:
        begin = len(data)
        for identity, text in lines.items():
            data.extend(struct.pack(">HH", 0, identity))
            data.extend(counted(text, 4, len(data)))
        return begin

    add(joe)
    partner_offset = add(partner)
    again_offset = len(data)
    for text in again:
        data.extend(counted(text, 2, len(data)))
    struct.pack_into(">5h", data, 0, -1, key, key, len(joe), len(partner))
    struct.pack_into(">3H", data, 22, partner_offset, 0, again_offset)
    return BANK + bytes(data)


def cut_scene(texts: list[str]) -> bytes:
    """Return a ``*.CUT`` member; ``texts`` are lines 0 and following."""
    data = bytearray(10)
    struct.pack_into(">h", data, 2, -(len(texts) - 1))
    struct.pack_into(">H", data, 8, len(data))
    for text in texts:
        data.extend(counted(text, 2, len(data)))
    return BANK + bytes(data)


def remarks(things: list[str], replies: list[str]) -> bytes:
    """Return a ``QUEEN2.JAS`` member: things first, replies from FIRST_REPLY."""
    lines = things + ["filler"] * (FIRST_REPLY - len(things)) + replies
    return "\r\n".join(lines).encode("cp437")


def tone(seconds: float, pitch: float = 220.0) -> bytes:
    """Return an MP3 of a tone as the game's clips are: mono, 11,025 Hz."""
    times = np.arange(int(seconds * 11025)) / 11025
    sink = io.BytesIO()
    soundfile.write(
        sink,
        0.3 * np.sin(2 * np.pi * pitch * times),
        11025,
        format="MP3",
        subtype="MPEG_LAYER_III",
    )
    return sink.getvalue()
