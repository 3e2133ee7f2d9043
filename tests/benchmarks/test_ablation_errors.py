"""Errors by position and by frequency: small cases by hand, sums on random ones."""

import ablation_cells  # noqa: F401  (puts the ablation on the path)
import pytest
from ablation import errors
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.recipe.stages.sclite import align


def aligned(*pairs):
    """Of each pair of sequences, with its place as its id."""
    return {str(place): align(*pair) for place, pair in enumerate(pairs)}


TEXTS = st.lists(st.sampled_from("abcd"), max_size=12)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=5)


def test_each_token_of_ten_has_its_tenth():
    ref = list("abcdefghij")
    rows = errors.by_position([align(ref, [*ref[:3], "X", *ref[4:9]])])
    assert [row[0] for row in rows.values()] == [1] * 10
    wrong = [name for name, row in rows.items() if row[1]]
    assert wrong == ["30-40%", "90-100%"]  # one substituted, the last one deleted


def test_a_short_reference_lies_in_the_middle_of_its_parts():
    rows = errors.by_position([align("a", "a"), align("ab", "ab")])
    assert {name: row[0] for name, row in rows.items() if row[0]} == {
        "20-30%": 1,
        "50-60%": 1,
        "70-80%": 1,
    }


@pytest.mark.parametrize(
    ("hyp", "tenth"),
    [("Xabcd", "0-10%"), ("abXcd", "50-60%"), ("abcdX", "90-100%")],
)
def test_an_insertion_counts_at_its_position(hyp, tenth):
    rows = errors.by_position([align("abcd", hyp)])
    assert {name: row[1] for name, row in rows.items() if row[1]} == {tenth: 1}


def test_an_insertion_beside_nothing_is_not_lost():
    rows = errors.by_position([align("", "a")])
    assert rows["0-10%"] == [0, 1]


@pytest.mark.slow
@given(PAIRS)
def test_positions_add_up_to_all_errors(pairs):
    found = aligned(*pairs).values()
    rows = errors.by_position(found).values()
    assert sum(row[0] for row in rows) == sum(len(ref) for ref, _ in pairs)
    assert sum(row[1] for row in rows) == sum(one.errors for one in found)


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        *((0, "0"), (1, "1"), (2, "2-4"), (4, "2-4"), (5, "5-19"), (19, "5-19")),
        *((20, "20-99"), (99, "20-99"), (100, "100+"), (5000, "100+")),
    ],
)
def test_borders_of_the_classes(seen, name):
    rows = errors.by_frequency([align("w", "v")], {"w": seen})
    assert {key: row for key, row in rows.items() if row[0]} == {name: [1, 1]}


def test_insertions_have_no_class_and_case_is_no_error():
    rows = errors.by_frequency([align(["Do", "it"], ["do", "it", "now"])], {"Do": 1})
    assert rows["1"] == [1, 0]
    assert rows["0"] == [1, 0]
    assert sum(row[1] for row in rows.values()) == 0


@given(PAIRS, st.dictionaries(st.sampled_from("abcd"), st.integers(0, 200)))
def test_classes_add_up_to_substitutions_and_deletions(pairs, counts):
    found = aligned(*pairs)
    rows = errors.by_frequency(found.values(), counts)
    assert sum(row[0] for row in rows.values()) == sum(len(ref) for ref, _ in pairs)
    assert sum(row[1] for row in rows.values()) == sum(
        one.substituted + one.deleted for one in found.values()
    )
    single = [errors.by_frequency([one], counts) for one in found.values()]
    for name, row in rows.items():
        assert row == [sum(one[name][k] for one in single) for k in (0, 1)]


READINGS = {"他": {"ta1"}, "她": {"ta1"}, "打": {"da3"}, "大": {"da4", "dai4"}}


@pytest.mark.parametrize(
    ("hyp", "kind"),
    [
        *(("她", "homophone"), ("打", "sound"), ("", "deleted"), ("新", "sound")),
        ("他", None),
    ],
)
def test_what_is_written_instead_is_classed_by_its_sound(hyp, kind):
    rows = errors.by_sound(align("他", hyp), ["ta1"], READINGS)
    assert rows == {name: int(name == kind) for name in errors.SOUNDS}


def test_one_of_several_readings_in_another_tone_is_a_wrong_tone():
    rows = errors.by_sound(align("打他", "大他大"), ["da3", "ta1"], READINGS)
    assert rows == {"homophone": 0, "tone": 1, "sound": 0, "deleted": 0}


def test_each_character_needs_a_reading():
    with pytest.raises(ValueError, match="shorter"):
        errors.by_sound(align("他大", "他"), ["ta1"], {})


@pytest.mark.slow
@given(PAIRS)
def test_sounds_add_up_to_substitutions_and_deletions(pairs):
    readings = {"a": {"a1", "b1"}, "b": {"b2"}}
    for ref, hyp in pairs:
        one = align(ref, hyp)
        rows = errors.by_sound(one, [f"{c}1" for c in ref], readings)
        assert sum(rows.values()) == one.substituted + one.deleted


def test_length_errors_are_ascending():
    lengths = [(3, 3), (3, 5), (4, 1), (2, 2)]
    assert list(errors.length_errors(lengths).items()) == [(-3, 1), (0, 2), (2, 1)]
