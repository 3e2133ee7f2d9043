"""The script of FOTAQ: which words belong to which clip."""

from pathlib import Path
from typing import Any

import fotaq_fixture as fixture
import pytest

fotaq_corpus = fixture.load("fotaq_corpus")
fotaq_text = fixture.load("fotaq_text")
Archive = fixture.load("fotaq_archive").Archive
ArchiveError = fixture.load("fotaq_archive").ArchiveError


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("One.", ["One."]),
        ("One.*03", ["One.", ""]),
        ("*FROne.*04Two!", ["", "One.", "Two!"]),
        ("One *GDtwo *GMthree", ["One two three"]),
        ("*XY00(128,112)*FLOne", ["", "", "One"]),
        ("Hello...*16*03*WTI", ["Hello...", "", "", "I"]),
        ("a * b", ["a  b"]),
        ("", [""]),
    ],
)
def test_segments(text: str, segments: list[str]) -> None:
    assert fotaq_text.split_segments(text) == segments


def _script(**changes: bytes) -> Any:
    members = {
        "BOB1.DOG": fixture.dialogue(
            6,
            joe={0: "Good day.*03", 9: "I am off.", 0xCC: "Odd."},
            partner={0: "It is I.", 1: "Well?*01Speak.", 0x1F: "No"},
            again=("You again.*00Go", "It is I."),
        ),
        "C7.CUT": fixture.cut_scene(["", "*FRHey*06", "ab", "Last.*01One."]),
        "QUEEN2.JAS": fixture.remarks(["A box*03", "A fox*01A hen"], ["I can't*03"]),
    }
    members.update(changes)
    return Archive(fixture.pack(members))


def _spoken(archive: Any) -> dict[str, tuple[str, str]]:
    lines = [
        *fotaq_text.dialogue(archive, "BOB1.DOG"),
        *fotaq_text.cut_scene(archive, "C7.CUT"),
        *fotaq_text.remarks(archive, first_reply=fixture.FIRST_REPLY),
    ]
    return {line.clip: (line.speaker, line.text) for line in lines if line.text}


def test_clips_get_their_line_and_speaker() -> None:
    spoken = _spoken(_script())
    assert [spoken.pop(f"JOE00{n}1")[1] for n in (43, 44, 45)] == ["filler"] * 3
    assert spoken == {
        "06SSSSJ1": ("JOE", "Good day."),
        "060009J1": ("JOE", "I am off."),
        "0600CCJ1": ("JOE", "Odd."),
        "060001P1": ("BOB", "Well?"),
        "060001P2": ("BOB", "Speak."),
        "06001FP1": ("BOB", "No"),
        "06XXXXP1": ("BOB", "You again."),
        "06XXXXP2": ("BOB", "Go"),
        "06XXXXJ1": ("JOE", "It is I."),
        "C7___012": ("UNKNOWN", "Hey"),
        "C7___021": ("UNKNOWN", "ab"),
        "C7___031": ("UNKNOWN", "Last."),
        "C7___032": ("UNKNOWN", "One."),
        "JOE00011": ("JOE", "I can't"),
        "JOE00411": ("JOE", "A box"),
        "JOE00421": ("JOE", "A fox"),
        "JOE00422": ("JOE", "A hen"),
    }


def test_damaged_scripts_are_named() -> None:
    complete = _script().read("BOB1.DOG")
    for cut in (complete[:40], complete[:170]):
        with pytest.raises(ArchiveError, match=r"BOB1\.DOG"):
            list(fotaq_text.dialogue(_script(**{"BOB1.DOG": cut}), "BOB1.DOG"))
    scene = fixture.cut_scene(["", "Hey", "Last."])
    for cut in (scene[:25], scene[:-3]):
        with pytest.raises(ArchiveError, match=r"C7\.CUT"):
            list(fotaq_text.cut_scene(_script(**{"C7.CUT": cut}), "C7.CUT"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well King...", "WELL KING"),
        ("don't  push--me, 'em!", "DON'T PUSH ME 'EM"),
        ("the Amazons' cave", "THE AMAZONS' CAVE"),
        ('"Quoted" \' alone', "QUOTED ALONE"),
        ("(sigh) Not <cough> now", "NOT NOW"),
        ("...", ""),
        ("24 Hours", None),
        ("", ""),
    ],
)
def test_wording(text: str, words: str | None) -> None:
    assert fotaq_corpus.normalise(text) == words


def _clip(name: str, text: str, seconds: float = 1.0, digest: str = "") -> Any:
    return fotaq_corpus.Clip(
        fotaq_text.Line(name, "JOE", text), seconds, digest or name
    )


def test_left_out_clips_have_a_reason() -> None:
    clips = [
        _clip("A", "Fine"),
        _clip("B", "Grr"),
        _clip("C", "Short", seconds=0.49),
        _clip("D", "7"),
        _clip("E", "!!"),
        _clip("F", "Twice", digest="same"),
        _clip("G", "Twice", digest="same"),
    ]
    kept, left_out = fotaq_corpus.select(reversed(clips), {"B": "nonspeech"})
    assert [(u.utt_id, u.words) for u in kept] == [
        ("JOE-A", "FINE"),
        ("JOE-G", "TWICE"),
    ]
    assert left_out == {
        "B": "nonspeech",
        "C": "short",
        "D": "digits",
        "E": "wordless",
        "F": "duplicate",
    }


def _many(count: int) -> list[Any]:
    # Every text twice, by two clips.
    return [
        fotaq_corpus.Utterance(f"{n:05d}", "JOE", f"WORD {'A' * (n // 2)}", 1.0)
        for n in range(count)
    ]


def test_no_text_is_in_two_sets_and_the_split_is_stable() -> None:
    utterances = _many(2000)
    sets = fotaq_corpus.split(utterances)
    texts = [{u.words for u in sets[name]} for name in fotaq_corpus.SETS]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert sum(len(members) for members in sets.values()) == 2000
    for name in ("dev", "test"):
        assert 60 < len(sets[name]) < 160
    fewer = fotaq_corpus.split(reversed(utterances[:500]))
    for name, members in fewer.items():
        assert {u.clip for u in members} <= {u.clip for u in sets[name]}


def test_a_larger_subset_contains_the_smaller() -> None:
    sets = fotaq_corpus.split(_many(1000))
    small = fotaq_corpus.subset(sets, 100, 10)
    large = fotaq_corpus.subset(sets, 300, 20)
    assert [len(small[name]) for name in fotaq_corpus.SETS] == [100, 10, 10]
    for name in fotaq_corpus.SETS:
        chosen = {u.clip for u in small[name]}
        assert chosen <= {u.clip for u in large[name]} <= {u.clip for u in sets[name]}


def test_the_committed_list_is_in_order() -> None:
    listed = fotaq_corpus.read_excluded(fixture.LOCAL / "excluded.tsv")
    assert list(listed) == sorted(listed)
    assert set(listed.values()) == {
        "nonspeech",
        "invented",
        "mismatch",
        "fast",
        "unsure",
    }
    for name in ("55SSSSJ1", "55XXXXJ1", "400006J1", "COMIC381"):
        assert listed[name] == "mismatch"


def test_a_bad_list_is_named(tmp_path: Path) -> None:
    table = tmp_path / "excluded.tsv"
    table.write_text("A\tnoise\nB noise\n")
    with pytest.raises(ValueError, match=r"excluded\.tsv:2"):
        fotaq_corpus.read_excluded(table)
