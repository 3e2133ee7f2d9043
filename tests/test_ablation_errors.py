"""Errors by position and by frequency: small cases by hand, sums on random ones."""

import ablation_cells  # noqa: F401  (puts the ablation on the path)
import pytest
from ablation import errors
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.recipe.alignment import align

TEXTS = st.lists(st.sampled_from("abcd"), max_size=12)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=5)


def test_each_token_of_ten_has_its_tenth():
    ref = list("abcdefghij")
    rows = errors.by_position([ref], [[*ref[:3], "X", *ref[4:9]]])
    assert [row[0] for row in rows.values()] == [1] * 10
    wrong = [name for name, row in rows.items() if row[1]]
    assert wrong == ["30-40%", "90-100%"]  # one substituted, the last one deleted


def test_a_short_reference_lies_in_the_middle_of_its_parts():
    rows = errors.by_position([["a"], ["a", "b"]], [["a"], ["a", "b"]])
    assert {name: row[0] for name, row in rows.items() if row[0]} == {
        "20-30%": 1,
        "50-60%": 1,
        "70-80%": 1,
    }


@pytest.mark.parametrize(
    ("hyp", "tenth"),
    [("Xabcd", "0-10%"), ("abXcd", "50-60%"), ("abcdX", "90-100%")],
)
def test_an_insertion_counts_where_it_stands(hyp, tenth):
    rows = errors.by_position([list("abcd")], [list(hyp)])
    assert {name: row[1] for name, row in rows.items() if row[1]} == {tenth: 1}


def test_an_insertion_beside_nothing_is_not_lost():
    rows = errors.by_position([[]], [["a"]])
    assert rows["0-10%"] == [0, 1]


@given(PAIRS)
def test_positions_add_up_to_all_errors(pairs):
    refs, hyps = [p[0] for p in pairs], [p[1] for p in pairs]
    rows = errors.by_position(refs, hyps).values()
    assert sum(row[0] for row in rows) == sum(map(len, refs))
    assert sum(row[1] for row in rows) == sum(align(*p).errors for p in pairs)


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        *((0, "0"), (1, "1"), (2, "2-4"), (4, "2-4"), (5, "5-19"), (19, "5-19")),
        *((20, "20-99"), (99, "20-99"), (100, "100+"), (5000, "100+")),
    ],
)
def test_borders_of_the_classes(seen, name):
    rows = errors.by_frequency([["w"]], [["v"]], {"w": seen})
    assert {key: row for key, row in rows.items() if row[0]} == {name: [1, 1]}


def test_insertions_have_no_class_and_case_is_no_error():
    rows = errors.by_frequency([["Do", "it"]], [["do", "it", "now"]], {"Do": 1})
    assert rows["1"] == [1, 0]
    assert rows["0"] == [1, 0]
    assert sum(row[1] for row in rows.values()) == 0


@given(PAIRS, st.dictionaries(st.sampled_from("abcd"), st.integers(0, 200)))
def test_classes_add_up_to_substitutions_and_deletions(pairs, counts):
    refs, hyps = [p[0] for p in pairs], [p[1] for p in pairs]
    names = [f"u{i}" for i in range(len(pairs))]
    rows = errors.by_frequency(refs, hyps, counts)
    aligned = [align(*pair) for pair in pairs]
    assert sum(row[0] for row in rows.values()) == sum(map(len, refs))
    assert sum(row[1] for row in rows.values()) == sum(
        one.substituted + one.deleted for one in aligned
    )
    single = errors.by_frequency_utterances(refs, hyps, counts, names)
    assert list(single) == names
    for name, row in rows.items():
        parts = [single[utt].get(name, [0, 0]) for utt in names]
        assert row == [sum(part[0] for part in parts), sum(part[1] for part in parts)]


READINGS = {"他": {"ta1"}, "她": {"ta1"}, "打": {"da3"}, "大": {"da4", "dai4"}}


@pytest.mark.parametrize(
    ("hyp", "kind"),
    [
        *(("她", "homophone"), ("打", "sound"), ("", "deleted"), ("新", "sound")),
        ("他", None),
    ],
)
def test_what_is_written_instead_is_classed_by_its_sound(hyp, kind):
    rows = errors.by_sound_utterances([["他"]], [list(hyp)], [["ta1"]], READINGS, "u")
    assert rows == {"u": {name: [1, int(name == kind)] for name in errors.SOUNDS}}


def test_one_of_several_readings_in_another_tone_is_a_wrong_tone():
    rows = errors.by_sound_utterances(
        [["打", "他"]], [["大", "他", "大"]], [["da3", "ta1"]], READINGS, ["u"]
    )
    assert rows["u"] == {
        "homophone": [2, 0],
        "tone": [2, 1],
        "sound": [2, 0],
        "deleted": [2, 0],
    }


def test_a_character_without_a_reading_is_refused_by_the_name_of_its_sentence():
    with pytest.raises(ValueError, match="u7: 2 characters, 1 read"):
        errors.by_sound_utterances([["他", "大"]], [["他"]], [["ta1"]], {}, ["u7"])


@given(PAIRS)
def test_sounds_add_up_to_substitutions_and_deletions(pairs):
    refs, hyps = [p[0] for p in pairs], [p[1] for p in pairs]
    spoken = [[f"{c}1" for c in ref] for ref in refs]
    readings = {"a": {"a1", "b1"}, "b": {"b2"}}
    names = [f"u{i}" for i in range(len(pairs))]
    rows = errors.by_sound_utterances(refs, hyps, spoken, readings, names)
    total = errors.summed(rows.values())
    aligned = [align(*pair) for pair in pairs]
    assert sum(row[1] for row in total.values()) == sum(
        one.substituted + one.deleted for one in aligned
    )
    assert {row[0] for row in total.values()} <= {sum(map(len, refs))}


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 references, 1 hypotheses"):
        errors.by_position([["a"], ["b"]], [["a"]])


def test_length_errors_are_ascending():
    lengths = [(3, 3), (3, 5), (4, 1), (2, 2)]
    assert list(errors.length_errors(lengths).items()) == [(-3, 1), (0, 2), (2, 1)]
