"""Syllables of the HSK recipe: gcin's names for them, and tones in a sentence."""

import hsk_fixture as fixture
import pytest

hsk_pinyin = fixture.load("hsk_pinyin")


@pytest.mark.parametrize(
    ("pinyin", "name"),
    [
        ("ma1", "ㄇㄚ"),
        ("ma5", "ㄇㄚ1"),
        ("hao3", "ㄏㄠ3"),
        ("shi4", "ㄕ4"),
        ("ji1", "ㄐㄧ"),
        ("zhuang4", "ㄓㄨㄤ4"),
        ("xiong2", "ㄒㄩㄥ2"),
        ("jun1", "ㄐㄩㄣ"),
        ("qu4", "ㄑㄩ4"),
        ("lv3", "ㄌㄩ3"),
        ("nü3", "ㄋㄩ3"),
        ("lve4", "ㄌㄩㄝ4"),
        ("yi1", "ㄧ"),
        ("you3", "ㄧㄡ3"),
        ("ying2", "ㄧㄥ2"),
        ("yuan2", "ㄩㄢ2"),
        ("yong4", "ㄩㄥ4"),
        ("wo3", "ㄨㄛ3"),
        ("wu3", "ㄨ3"),
        ("wei4", "ㄨㄟ4"),
        ("wen2", "ㄨㄣ2"),
        ("er2", "ㄦ2"),
        ("r5", None),
        ("hao", None),
    ],
)
def test_syllables_are_named_as_gcin_names_them(pinyin: str, name: str | None) -> None:
    assert hsk_pinyin.zhuyin(pinyin) == name


@pytest.mark.parametrize(
    ("words", "pinyin", "spoken"),
    [
        ("你好", "ni3 hao3", "ni2 hao3"),
        ("我很好", "wo3 hen3 hao3", "wo2 hen2 hao3"),
        ("好，我来", "hao3 wo3 lai2", "hao3 wo3 lai2"),
        ("好啊", "hao3 a5", "hao3 a5"),
        ("不是", "bu4 shi4", "bu2 shi4"),
        ("不好", "bu4 hao3", "bu4 hao3"),
        ("我不，是", "wo3 bu4 shi4", "wo3 bu4 shi4"),
        ("一天", "yi1 tian1", "yi4 tian1"),
        ("一起", "yi1 qi3", "yi4 qi3"),
        ("一样", "yi1 yang4", "yi2 yang4"),
        ("一个", "yi1 ge5", "yi2 ge5"),
        ("一百", "yi1 bai3", "yi4 bai3"),
        ("第一次", "di4 yi1 ci4", "di4 yi1 ci4"),
        ("十一万", "shi2 yi1 wan4", "shi2 yi1 wan4"),
        ("一月", "yi1 yue4", "yi1 yue4"),
        ("一九一二", "yi1 jiu3 yi1 er4", "yi1 jiu3 yi1 er4"),
        ("看一看", "kan4 yi1 kan4", "kan4 yi5 kan4"),
        ("第一", "di4 yi1", "di4 yi1"),
        ("一百", "yi4 bai3", "yi4 bai3"),
    ],
)
def test_neighbours_change_tones(words: str, pinyin: str, spoken: str) -> None:
    first, comma, rest = words.partition("，")
    plain = first + rest
    breaks = [bool(comma) and at + 1 == len(first) for at in range(len(plain))]
    done = hsk_pinyin.sandhi(plain, pinyin.split(), breaks, [False] * len(plain))
    assert done == spoken.split()


def test_the_end_of_a_word_decides_what_dictionaries_cannot() -> None:
    def spoken(words: str, pinyin: str, ends: list[bool]) -> list[str]:
        none = [False] * len(words)
        done: list[str] = hsk_pinyin.sandhi(words, pinyin.split(), none, ends)
        return done

    assert spoken("统一价", "tong3 yi1 jia4", [False, True, False])[1] == "yi1"
    assert spoken("到了站", "dao4 liao3 zhan4", [False, True, False])[1] == "le5"
    assert spoken("受不了", "shou4 bu4 liao3", [False, False, True])[2] == "liao3"
    assert spoken("很了解", "hen3 liao3 jie3", [False, False, True])[1] == "liao2"


def test_what_is_said_otherwise_makes_no_third_tone() -> None:
    ends = [False, True, False]
    done = hsk_pinyin.sandhi("跑了马", ["pao3", "liao3", "ma3"], [False] * 3, ends)
    assert done == ["pao3", "le5", "ma3"]
