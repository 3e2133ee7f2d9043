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
def test_an_insertion_counts_where_it_stands(hyp, tenth):
    rows = errors.by_position([align("abcd", hyp)])
    assert {name: row[1] for name, row in rows.items() if row[1]} == {tenth: 1}


def test_an_insertion_beside_nothing_is_not_lost():
    rows = errors.by_position([align("", "a")])
    assert rows["0-10%"] == [0, 1]


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
    single = errors.by_frequency_utterances(found, counts)
    assert list(single) == list(found)
    for name, row in rows.items():
        parts = [one.get(name, [0, 0]) for one in single.values()]
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
    rows = errors.by_sound_utterances(aligned(("他", hyp)), {"0": ["ta1"]}, READINGS)
    assert rows == {"0": {name: [1, int(name == kind)] for name in errors.SOUNDS}}


def test_one_of_several_readings_in_another_tone_is_a_wrong_tone():
    rows = errors.by_sound_utterances(
        aligned(("打他", "大他大")), {"0": ["da3", "ta1"]}, READINGS
    )
    assert rows["0"] == {
        "homophone": [2, 0],
        "tone": [2, 1],
        "sound": [2, 0],
        "deleted": [2, 0],
    }


def test_a_character_without_a_reading_is_refused_by_the_name_of_its_sentence():
    with pytest.raises(ValueError, match="u7: 2 characters, 1 read"):
        errors.by_sound_utterances({"u7": align("他大", "他")}, {"u7": ["ta1"]}, {})


@given(PAIRS)
def test_sounds_add_up_to_substitutions_and_deletions(pairs):
    found = aligned(*pairs)
    spoken = {utt: [f"{c}1" for c in pair[0]] for utt, pair in zip(found, pairs)}
    readings = {"a": {"a1", "b1"}, "b": {"b2"}}
    rows = errors.by_sound_utterances(found, spoken, readings)
    total = errors.summed(rows.values())
    assert sum(row[1] for row in total.values()) == sum(
        one.substituted + one.deleted for one in found.values()
    )
    assert {row[0] for row in total.values()} <= {sum(len(ref) for ref, _ in pairs)}


def test_length_errors_are_ascending():
    lengths = [(3, 3), (3, 5), (4, 1), (2, 2)]
    assert list(errors.length_errors(lengths).items()) == [(-3, 1), (0, 2), (2, 1)]
