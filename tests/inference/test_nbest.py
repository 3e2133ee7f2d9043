"""Lists of hypotheses: reading ESPnet's files, choosing, fitting."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbest_files import write_rank

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.nbest import Hypothesis, choose, fit, read_nbest, totals


@pytest.fixture
def folder(tmp_path):
    """Two jobs; the tenth hypothesis comes after the second, not after the first."""
    write_rank(tmp_path, 1, 1, [("a", "so far", -1.5), ("b", "", -0.25)])
    write_rank(tmp_path, 1, 2, [("a", "so fat", -2.0)])
    write_rank(tmp_path, 1, 10, [("a", "to far", -9e-05)])
    write_rank(tmp_path, 2, 1, [("c", "x", -1e3)])
    return tmp_path


def test_the_lists_of_all_jobs_are_read(folder):
    found = read_nbest(folder)
    assert [one.text for one in found["a"]] == ["so far", "so fat", "to far"]
    assert [one.score for one in found["a"]] == [-1.5, -2.0, -9e-05]
    assert found["b"] == [Hypothesis("", "", "", -0.25)] and len(found["b"][0]) == 0
    assert found["c"][0].token_int == "120" and len(found["a"][0]) == 6


@pytest.mark.parametrize("name", ["text", "token", "token_int", "score"])
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / f"logdir/output.1/2best_recog/{name}").unlink()
    with pytest.raises(UserError, match=f"2best_recog/{name} is missing"):
        read_nbest(folder)


def test_a_line_that_is_missing_is_named(folder):
    (folder / "logdir/output.2/1best_recog/token").write_text("")
    with pytest.raises(UserError, match="1best_recog: c is incomplete"):
        read_nbest(folder)


def test_a_folder_without_lists_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no logdir"):
        read_nbest(tmp_path)
    write_rank(tmp_path, 1, 1, [("a", "so", -1.0)])
    with pytest.raises(UserError, match=r"decode again with .*--nbest 10"):
        read_nbest(tmp_path)


def hypothesis(text, score):
    return Hypothesis(text, " ".join(text), " ".join("1" * len(text)), score)


LISTS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(
        st.builds(hypothesis, st.text("xy", max_size=4), st.floats(-9, 0)), min_size=1
    ),
    min_size=1,
)


@given(nbest=LISTS, weight=st.floats(0, 2), bonus=st.floats(-2, 2))
def test_the_choice_has_the_best_total(nbest, weight, bonus):
    others = {h.text: -len(h.text) * 1.5 for some in nbest.values() for h in some}
    for key, (chosen, total) in choose(nbest, others, weight, bonus).items():
        found = totals(nbest[key], others, weight, bonus)
        assert total == found.max() and chosen in nbest[key]
        by_hand = chosen.score + weight * others[chosen.text] + bonus * len(chosen)
        assert total == pytest.approx(by_hand)


@given(nbest=LISTS)
def test_without_weight_and_bonus_the_search_decides(nbest):
    others = {h.text: 0.0 for some in nbest.values() for h in some}
    for key, (chosen, total) in choose(nbest, others, 0.0, 0.0).items():
        assert total == max(one.score for one in nbest[key])
        assert chosen == next(one for one in nbest[key] if one.score == total)


@given(nbest=LISTS, truth=st.dictionaries(st.sampled_from("abcdef"), st.text("xy")))
def test_the_fit_is_the_best_of_the_grid(nbest, truth):
    others = {h.text: -float(h.text.count("y")) for s in nbest.values() for h in s}

    def errors(key, text):
        return abs(len(text) - len(truth.get(key, "")))

    grid = [0.0, 0.5, 1.0], [0.0, -1.0, 1.0]
    found = fit(nbest, others, errors, *grid)

    def count(weight, bonus):
        chosen = choose(nbest, others, weight, bonus)
        return sum(errors(key, one.text) for key, (one, _) in chosen.items())

    counts = {pair: count(*pair) for pair in itertools.product(*grid)}
    assert found.errors == min(counts.values()) == counts[found.weight, found.bonus]
    smallest = min(w for (w, _), n in counts.items() if n == found.errors)
    assert found.weight == smallest
    assert found.least <= found.errors
    assert found.first == sum(errors(key, some[0].text) for key, some in nbest.items())
