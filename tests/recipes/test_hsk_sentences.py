"""The HSK recipe's sentences: what is read and left out, and the sets."""

from pathlib import Path

import hsk_fixture as fixture
import pytest
from hsk_fixture import row

from espnet_cif_hkd.errors import UserError

hsk_sentences = fixture.load("hsk_sentences")


def test_characters_syllables_and_stops_are_read(tmp_path: Path) -> None:
    content = [row("hsk1-0001", "“妈”，好。骂马！", "ma1 hao3 ma4 ma3")]
    kept, left_out = hsk_sentences.read_sentences(
        fixture.wheel(tmp_path / "x.whl", content)
    )
    assert not left_out
    (sentence,) = kept
    assert sentence.name == "hsk1-0001"
    assert sentence.words == "妈好骂马"
    assert sentence.stops == (1, 2, 0, 2)
    assert sentence.pinyin == ("ma1", "hao3", "ma4", "ma3")


def test_tones_change_within_a_phrase_only(tmp_path: Path) -> None:
    content = [
        row("hsk1-0001", "好马好，马好。", "hao3 ma3 hao3 ma3 hao3"),
        row("hsk1-0002", "到了一个。", "dao4 liao3 yi1 ge5", "到了 一 个"),
    ]
    kept, _ = hsk_sentences.read_sentences(fixture.wheel(tmp_path / "x.whl", content))
    assert kept[0].pinyin == ("hao2", "ma2", "hao3", "ma2", "hao3")
    assert kept[0].dictionary == ("hao3", "ma3", "hao3", "ma3", "hao3")
    assert kept[1].pinyin == ("dao4", "le5", "yi2", "ge5")


def test_what_cannot_be_voiced_is_left_out_with_its_reason(tmp_path: Path) -> None:
    content = [
        row("hsk1-0001", "好马。", "hao3 ma3"),
        row("hsk1-0002", "好，马！", "hao3 ma3"),
        row("hsk1-0003", "好DVD。", "hao3"),
        row("hsk1-0004", "好5马。", "hao3 wu3 ma3"),
        row("hsk1-0005", "好妈。", "hao3 ma1 ma1"),
        row("hsk1-0006", "。", ""),
    ]
    kept, left_out = hsk_sentences.read_sentences(
        fixture.wheel(tmp_path / "x.whl", content)
    )
    assert [sentence.name for sentence in kept] == ["hsk1-0001"]
    assert left_out == {
        "hsk1-0002": "duplicate",
        "hsk1-0003": "writing",
        "hsk1-0004": "writing",
        "hsk1-0005": "pinyin",
        "hsk1-0006": "writing",
    }


def test_another_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"x\.whl: no list of sentences"):
        hsk_sentences.read_sentences(path)
    with pytest.raises(UserError, match="pinyin_numbered"):
        hsk_sentences.read_sentences(fixture.wheel(path, [{"id": "a", "chinese": ""}]))


def _sets(tmp_path: Path, count: int) -> dict[str, list[str]]:
    wheel = fixture.wheel(tmp_path / f"{count}.whl", fixture.rows(count))
    kept, _ = hsk_sentences.read_sentences(wheel)
    sets = hsk_sentences.split(kept)
    assert list(sets) == ["train", "dev", "test"]
    return {name: [s.words for s in inside] for name, inside in sets.items()}


def test_a_sentence_is_in_one_set_and_stays_there(tmp_path: Path) -> None:
    few, many = _sets(tmp_path, 500), _sets(tmp_path, 2000)
    assert sum(len(inside) for inside in many.values()) == 2000
    assert len(set().union(*many.values())) == 2000
    for name in few:
        assert set(few[name]) < set(many[name])
    for name in ("dev", "test"):
        assert len(many[name]) == pytest.approx(
            2000 * hsk_sentences.HELD_OUT_SHARE, rel=0.2
        )


def test_punctuation_does_not_decide_the_set(tmp_path: Path) -> None:
    for at, entry in enumerate(fixture.rows(20)):
        plain = {**entry, "chinese": entry["chinese"].replace("，", "") + "！"}
        places = []
        for written in (entry, plain):
            wheel = fixture.wheel(tmp_path / "x.whl", [written])
            sets = hsk_sentences.split(hsk_sentences.read_sentences(wheel)[0])
            places.append([name for name, inside in sets.items() if inside])
        assert places[0] == places[1], at


def test_a_larger_subset_contains_the_smaller_one(tmp_path: Path) -> None:
    wheel = fixture.wheel(tmp_path / "x.whl", fixture.rows(400))
    sets = hsk_sentences.split(hsk_sentences.read_sentences(wheel)[0])
    small, large = (hsk_sentences.subset(sets, size, 5) for size in (20, 90))
    assert [len(small[name]) for name in small] == [20, 5, 5]
    assert small["dev"] == large["dev"]
    assert small["train"] == large["train"][:20]
    assert {s.name for s in large["train"]} <= {s.name for s in sets["train"]}
