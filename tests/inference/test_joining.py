"""Results of passages make one result."""

import pytest

from espnet_cif_hkd.inference.assemble import assembled
from espnet_cif_hkd.inference.joining import Joiner, joined
from espnet_cif_hkd.inference.recognition import Flag, Recognition


def passage(pieces, start, score=-1.0):
    spans = [(start + n / 10, start + n / 10 + 0.1) for n in range(len(pieces))]
    flags = [Flag("missing", start, start + 0.1, 0.8)]
    ids = range(3, 3 + len(pieces))
    return assembled(ids, pieces, pieces, spans, 9.0, None, score, flags)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([["so", " far"], ["so", " good"]], "so far so good"),
        ([["S", "O", " "], ["F", "A", "R"]], "SO FAR"),
        ([["S", "O"], [" ", "F", "A", "R"]], "SO FAR"),
        ([["你", "好"], ["世", "界"]], "你好世界"),
        ([["你", "好"], ["OK"], ["好"]], "你好OK好"),
        ([["so", "."], ["", "far"]], "so. far"),
        ([[], ["so"], [], ["far"]], "so far"),
    ],
)
def test_the_text_of_passages(parts, text):
    passages = [passage(pieces, 1.0 + 2 * n) for n, pieces in enumerate(parts)]
    result = joined(passages, 9.0).validate()
    assert result.text == text
    assert [one.text for one in result.words] == [
        word.text for one in passages for word in one.words
    ]
    assert result.score == -1.0 * sum(bool(one.tokens) for one in passages)
    assert len(result.segments) == sum(len(one.segments) for one in passages)
    assert len(result.flags) == len(passages)


def test_a_further_passage_is_not_added():
    joiner = Joiner()
    joiner.add(passage(["a"], 1.0))
    assert joiner.result(9.0, passage(["b"], 2.0)).text == "a b"
    assert joiner.result(9.0).text == "a"
    assert joiner.result(9.0, passage(["b"], 2.0, score=None)).score is None


@pytest.mark.parametrize("second", [1.25, 1.05, 0.5])
def test_passages_that_overlap(second):
    """Speech that was cut without a pause: the result has an order all the same."""
    parts = passage(["so", " far"], 1.0), passage(["a", " b", " c"], second)
    result = joined(parts, 9.0).validate()
    assert result.text == "so far a b c"
    assert result.tokens[:2] == parts[0].tokens


def test_nothing():
    assert joined([], 2.0) == Recognition(duration=2.0)
