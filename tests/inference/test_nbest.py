"""Lists of hypotheses: reading ESPnet's files, choosing, fitting."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbest_files import write_rank, write_texts

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.nbest import Hypothesis, choose, fit, read_nbest


@pytest.fixture
def folder(tmp_path):
    """Two jobs; ten hypotheses of one utterance."""
    write_rank(tmp_path, 1, 1, [("a", "so far", -1.5), ("b", "", -0.25)])
    write_rank(tmp_path, 1, 2, [("a", "so fat", -2.0)])
    for rank in range(3, 11):
        write_rank(tmp_path, 1, rank, [("a", f"to far {rank}", -1e2 * rank)])
    write_rank(tmp_path, 2, 1, [("c", "x", -9e-05)])
    write_texts(tmp_path)
    return tmp_path


def test_the_lists_of_all_jobs_are_read(folder):
    found = read_nbest(folder)
    assert [one.text for one in found["a"]][:3] == ["so far", "so fat", "to far 3"]
    assert [one.score for one in found["a"]] == [
        -1.5,
        -2.0,
        *np.arange(-300, -1001, -100),
    ]
    assert found["b"] == [Hypothesis("", "", "", -0.25)] and len(found["b"][0]) == 0
    assert found["c"] == [Hypothesis("x", "x", "120", -9e-05)]
    assert len(found["a"][0]) == 6


@pytest.mark.parametrize("name", ["text", "token", "token_int", "score"])
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / f"logdir/output.1/2best_recog/{name}").unlink()
    with pytest.raises(UserError, match=f"2best_recog/{name} is missing"):
        read_nbest(folder)


@pytest.mark.parametrize("name", ["text", "token", "token_int", "score"])
def test_a_line_that_is_missing_is_named(folder, name):
    (folder / f"logdir/output.2/1best_recog/{name}").write_text("")
    with pytest.raises(UserError, match=r"hypotheses are missing \(c\)"):
        read_nbest(folder)


@pytest.mark.parametrize(("rank", "key"), [(1, "a"), (2, "a"), (1, "b")])
def test_a_rank_that_is_missing_is_named(folder, rank, key):
    """As after a job that was killed: each file has a buffer of its own."""
    for name in ("text", "token", "token_int", "score"):
        path = folder / f"logdir/output.1/{rank}best_recog/{name}"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(one for one in lines if one.split()[0] != key))
    with pytest.raises(UserError, match=rf"hypotheses are missing \({key}\)"):
        read_nbest(folder)


@pytest.mark.parametrize(
    ("job", "rank", "row"),
    [
        (3, 1, ("a", "old", -1.0)),
        (3, 1, ("d", "old", -1.0)),
        (1, 11, ("a", "old", -1.0)),
    ],
    ids=["more jobs", "another set", "more ranks"],
)
def test_what_an_earlier_decoding_left_is_refused(folder, job, rank, row):
    write_rank(folder, job, rank, [row])
    with pytest.raises(UserError, match="of an earlier decoding"):
        read_nbest(folder)


@pytest.mark.parametrize("score", ["tensor(nan)", "-inf", ""])
def test_a_score_that_is_no_finite_number_is_named(folder, score):
    (folder / "logdir/output.2/1best_recog/score").write_text(f"c {score}\n")
    with pytest.raises(UserError, match="the score of c"):
        read_nbest(folder)


def test_a_folder_without_lists_is_refused(tmp_path):
    with pytest.raises(UserError, match="decode the set with stage 12"):
        read_nbest(tmp_path)
    write_rank(tmp_path, 1, 1, [("a", "so", -1.0)])
    write_texts(tmp_path)
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
        assert chosen in nbest[key]
        by_hand = {
            one: one.score + weight * others[one.text] + bonus * len(one)
            for one in nbest[key]
        }
        assert total == by_hand[chosen] == max(by_hand.values())


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
    equal = [pair for pair, n in counts.items() if n == found.errors]
    first = min(equal, key=lambda pair: (pair[0], abs(pair[1])))
    assert (found.weight, abs(found.bonus)) == (first[0], abs(first[1]))
    assert found.least <= found.errors
    assert found.first == sum(errors(key, some[0].text) for key, some in nbest.items())
