"""Sentences without speech: what is read, what is left out, and in which order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import TOKENS
from unpaired import text_file

from espnet_cif_hkd.distill.unpaired_text import UnpairedText, read_unpaired_text
from espnet_cif_hkd.errors import UserError


def spelled(text):
    return ["".join(TOKENS[i] for i in ids) for ids in text.sequences()]


def test_what_cannot_be_learnt_is_left_out_and_counted(tmp_path):
    lines = ["ABBA", "", "A  CAFE", "HEADHEAD", "XA", "  ", "HEADHEA", "A<unk>"]
    text = read_unpaired_text(text_file(tmp_path, lines), TOKENS, max_length=7)
    assert spelled(text) == ["ABBA", "A<space>CAFE", "HEADHEA"]
    assert text.left_out == {"empty": 2, "above 7 tokens": 1, "with <unk>": 2}
    assert text.describe() == (
        "3 sentences, 17 tokens; left out: 2 empty, 1 above 7 tokens, 2 with <unk>"
    )


def test_words_and_sub_words(tmp_path):
    path = text_file(tmp_path, ["BAD CAFE", "A BAD"])
    words = ["<blank>", "<unk>", "BAD", "CAFE", "<sos/eos>"]
    text = read_unpaired_text(path, words)
    assert list(text.sequences()) == [[2, 3]]
    assert text.left_out["with <unk>"] == 1
    pieces = ["<blank>", "<unk>", "▁BAD", "<sos/eos>"]
    with pytest.raises(
        UserError, match=r"criterion_conf\.bpemodel is not set: name the"
    ):
        read_unpaired_text(path, pieces)
    with pytest.raises(
        UserError, match=r"bpemodel no\.model: this file does not exist"
    ):
        read_unpaired_text(path, pieces, "bpe", "no.model")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a \nb \n", {}, "no sentence to learn from: of 2 lines, 2 are empty, 0 have"),
        ("", {}, "no sentence to learn from: of 0 lines"),
        ("a XY\nb HEAD\n", {"max_length": 2}, "1 have above 2 tokens, 1 have tokens"),
        ("A BED\nA FACE\n", {}, "A occurs twice.* a name, then the words"),
        ("a A\n", {"token_type": "phn"}, "text of phn tokens cannot be divided"),
        ("a A\n", {"token_type": "hugging_face"}, "text of hugging_face tokens"),
    ],
)
def test_refused_in_one_line(tmp_path, content, options, message):
    path = tmp_path / "text"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_unpaired_text(str(path), TOKENS, **options)
    assert "\n" not in str(caught.value)


def test_files_and_token_lists_that_do_not_fit(tmp_path):
    with pytest.raises(UserError, match=r"absent is missing: criterion_conf\.text"):
        read_unpaired_text(str(tmp_path / "absent"), TOKENS)
    with pytest.raises(UserError, match="the token list has no <unk>"):
        read_unpaired_text(text_file(tmp_path), ["<blank>", "<space>", "A"])


def numbered(count):
    """Sentences of one token, its number; the last one is longer."""
    ends = np.arange(1, count + 1)
    ends[-1] += 1
    return UnpairedText(np.arange(ends[-1], dtype=np.int32), ends, {})


@given(
    st.integers(1, 7),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(0, 2**32),
)
def test_each_pass_has_every_sentence_once(size, batches, seed):
    """Whatever the batches, and also if a training begins in the middle."""
    text, drawn = numbered(size), []
    for count in batches:
        one = text.draw(len(drawn), count, seed)
        assert len(one) == count
        assert numbered(size).draw(len(drawn), count, seed) == one
        drawn += one
    everything = sorted(map(tuple, numbered(size).sequences()))
    for begin in range(0, len(drawn), size):
        one = sorted(map(tuple, drawn[begin : begin + size]))
        assert one == everything or len(one) < size
        assert len(set(one)) == len(one)


def test_passes_and_seeds_have_other_orders():
    text = numbered(40)
    orders = [text.draw(40 * n, 40, seed) for n in (0, 1) for seed in (1, 2)]
    assert len({str(order) for order in orders}) == 4
