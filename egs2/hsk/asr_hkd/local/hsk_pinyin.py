"""Syllables: their names in gcin, and tone sandhi."""

from __future__ import annotations

import re
from collections.abc import Sequence

NEUTRAL = "5"
_DIGITS = "〇零一二三四五六七八九"
# Next to these, 一 is an ordinal or a digit and keeps its tone.
_COUNT_BEFORE = "第十百" + _DIGITS
_COUNTED_AFTER = "月号楼" + _DIGITS


def _pairs(text: str) -> dict[str, str]:
    return dict(re.findall(r"([a-z]+)([^a-z ]+)", text))


_INITIALS = _pairs(
    "bㄅ pㄆ mㄇ fㄈ dㄉ tㄊ nㄋ lㄌ gㄍ kㄎ hㄏ "
    "jㄐ qㄑ xㄒ zhㄓ chㄔ shㄕ rㄖ zㄗ cㄘ sㄙ"
)
# v is ü. iou, uei, uen and ueng remain when y or w is removed.
_FINALS = _pairs(
    "aㄚ oㄛ eㄜ aiㄞ eiㄟ aoㄠ ouㄡ anㄢ enㄣ angㄤ engㄥ ongㄨㄥ erㄦ "
    "iㄧ iaㄧㄚ ioㄧㄛ ieㄧㄝ iaoㄧㄠ iuㄧㄡ iouㄧㄡ "
    "ianㄧㄢ inㄧㄣ iangㄧㄤ ingㄧㄥ iongㄩㄥ "
    "uㄨ uaㄨㄚ uoㄨㄛ uaiㄨㄞ uiㄨㄟ ueiㄨㄟ uanㄨㄢ unㄨㄣ uenㄨㄣ uangㄨㄤ uengㄨㄥ "
    "vㄩ veㄩㄝ vanㄩㄢ vnㄩㄣ"
)


def zhuyin(pinyin: str) -> str | None:
    """The name of ``hao3`` in gcin: zhuyin and tone. The first tone has no digit, the
    neutral one is 1. None for what is not a syllable, such as ``r``."""
    match = re.fullmatch(r"([a-zv]+)([1-5])", pinyin.lower().replace("ü", "v"))
    if match is None:
        return None
    letters, tone = match[1], {"1": "", NEUTRAL: "1"}.get(match[2], match[2])
    # y and w only mark the beginning of a syllable without an initial.
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


def _with_tone(syllable: str, tone: str) -> str:
    return syllable[:-1] + tone


def _one(words: str, at: int, ends_word: bool, following: str | None) -> str:
    """The tone of 一; ``following`` is the tone of the next syllable."""
    before, after = words[at - 1 : at], words[at + 1 : at + 2]
    if before and before == after:
        return NEUTRAL  # 看一看
    counts = (before and before in _COUNT_BEFORE) or (after and after in _COUNTED_AFTER)
    if following is None or counts or ends_word:
        return "1"
    # 个 is neutral, but acts like its original fourth tone.
    return "2" if following == "4" or after == "个" else "4"


def sandhi(
    words: str, pinyin: Sequence[str], breaks: Sequence[bool], ends: Sequence[bool]
) -> list[str]:
    """Apply tone sandhi to the dictionary tones of the package.

    First 一 and 不, then third tones: in a run of them all but the last become second.
    A break ends a phrase; sandhi does not cross it.

    Args:
        words: n characters.
        pinyin: n syllables, each with its tone.
        breaks: n, whether a pause follows the character.
        ends: n, whether the character ends a word of several characters.

    Returns:
        n syllables.
    """
    spoken = list(pinyin)
    for at, character in enumerate(words):
        last = breaks[at] or at + 1 == len(words)
        following = None if last else pinyin[at + 1][-1]
        if pinyin[at] == "yi1" and character == "一":
            spoken[at] = _with_tone("yi1", _one(words, at, ends[at], following))
        elif pinyin[at] == "bu4" and character == "不" and following == "4":
            spoken[at] = "bu2"
        # Dictionaries list 了 as liao3, which is right in 了解 or 受不了, not in 到了.
        elif pinyin[at] == "liao3" and character == "了" and ends[at]:
            spoken[at] = "liao3" if words[at - 1] in "不得" else "le5"
    tones = [syllable[-1] for syllable in spoken]
    for at in range(len(words) - 1):
        if not breaks[at] and tones[at : at + 2] == ["3", "3"]:
            spoken[at] = _with_tone(spoken[at], "2")
    return spoken
