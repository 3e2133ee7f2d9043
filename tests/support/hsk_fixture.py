"""Tiny packages with the layout of the recipe's two, made up from nothing of theirs."""

import dataclasses
import hashlib
import importlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).parents[2] / "egs2" / "hsk" / "asr_hkd"
LOCAL = RECIPE / "local"

# As gcin names folders: zhuyin and tone, no digit for the first, 1 for the neutral one.
RECORDED = (
    *("ㄇㄚ", "ㄇㄚ1", "ㄇㄚ3", "ㄇㄚ4", "ㄉㄚ4", "ㄉㄜ1"),
    *("ㄏㄠ2", "ㄏㄠ3", "ㄨㄛ3", "ㄖㄣ", "ㄖㄣ4", "ㄦ4"),
)
_CHARACTERS = {"妈": "ma1", "马": "ma3", "骂": "ma4", "大": "da4", "好": "hao3"}


def load(name: str) -> ModuleType:
    """Import a module of the recipe's ``local/``."""
    if str(LOCAL) not in sys.path:
        sys.path.insert(0, str(LOCAL))
    return importlib.import_module(name)


def row(name: str, chinese: str, pinyin: str, words: str = "") -> dict[str, Any]:
    """One entry of the package; ``words`` are split at blanks."""
    tokens = [{"word": word} for word in (words.split() if words else chinese)]
    return {
        "id": name,
        "chinese": chinese,
        "pinyin_numbered": pinyin,
        "tokens": tokens,
    }


def rows(count: int) -> list[dict[str, Any]]:
    """``count`` different sentences of five characters, with a comma."""
    made = []
    characters = list(_CHARACTERS)
    for n in range(count):
        text = "".join(characters[n // 5**k % 5] for k in range(5))
        pinyin = " ".join(_CHARACTERS[c] for c in text)
        made.append(row(f"hsk1-{n:04d}", f"{text[:3]}，{text[3:]}。", pinyin))
    return made


def wheel(path: Path, content: list[dict[str, Any]]) -> Path:
    """A wheel with these sentences."""
    with zipfile.ZipFile(path, "w") as archive:
        text = json.dumps(content, ensure_ascii=False)
        archive.writestr("hsk_sentences_audio/data/sentences.json", text)
    return path


def recording(number: int, seconds: float = 0.3) -> bytes:
    """A tone between two silences, as Ogg Vorbis at 44.1 kHz."""
    times = np.arange(int(seconds * 44_100)) / 44_100
    tone = 0.4 * np.sin(2 * np.pi * (300 + 150 * number) * times)
    silence = np.zeros(4410)
    sink = io.BytesIO()
    wave = np.concatenate([silence, tone, silence])
    soundfile.write(sink, wave, 44_100, format="OGG", subtype="VORBIS")
    return sink.getvalue()


def deb(path: Path, voices: str = "3") -> Path:
    """A Debian package with all that is recorded, in each of the voices."""
    root = path.parent / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: made-up\nVersion: 1\nArchitecture: all\n"
    control += "Maintainer: nobody <nobody@example.org>\nDescription: tones\n"
    (root / "DEBIAN" / "control").write_text(control)
    for number, name in enumerate(RECORDED):
        folder = root / "usr/share/gcin-voice/ogg" / name
        folder.mkdir(parents=True)
        for voice in voices:
            content = recording(number, seconds=0.1 * int(voice))
            (folder / f"{voice}.ogg").write_bytes(content)
    try:
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", str(root), str(path)],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("dpkg-deb, which the recipe needs, is not on this machine")
    return path


def know(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Let the recipe take the file at ``path`` for its package ``name``."""
    packages = load("hsk_packages")
    content = path.read_bytes()
    known = dataclasses.replace(
        getattr(packages, name),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr(packages, name, known)
