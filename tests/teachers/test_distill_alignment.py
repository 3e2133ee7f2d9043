"""Token ids to text, and ASR tokens to PLM tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_bert import build_tiny_bert

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.text.alignment import align, apply_alignments
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, open_tokenizer, unknown_text
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller, infer_token_type

LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ'")
CHARS = ["<blank>", "<unk>", "<space>", *LETTERS, "4", "2", "<sos/eos>"]
BPE = ["<blank>", "<unk>", "▁", "▁THE", "▁CAT", "▁PLAY", "ING", "S", "C", "A"]
BPE += ["<0xE4>", "<0xBD>", "<0xA0>", "<sos/eos>"]
WORDS = ["<blank>", "<unk>", "the", "cat", "is", "playing", "<sos/eos>"]
PLM = 2**10


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = build_tiny_bert(tmp_path_factory.mktemp("plm"))
    return open_tokenizer(TeacherConfig(folder, 12))


@pytest.fixture(scope="module")
def cased(tmp_path_factory):
    folder = build_tiny_bert(tmp_path_factory.mktemp("cased"), lowercase=False)
    return open_tokenizer(TeacherConfig(folder, 12))


def taught(tokenizer, token_list, tokens, token_type=None, case="auto", max_length=PLM):
    """For each token and <eos> the PLM tokens and weights that teach it."""
    speller = TokenSpeller(token_list, token_type, unknown_text(tokenizer), case)
    ids = [token_list.index(t) for t in tokens]
    alignment = align(speller(ids), tokenizer, max_length)
    flat = [i for window in alignment.windows for i in window]
    result = [[] for _ in range(alignment.n_tokens)]
    for row, column, weight in zip(
        alignment.rows, alignment.columns, alignment.weights, strict=True
    ):
        name = tokenizer.convert_ids_to_tokens(flat[column])
        result[row].append((name, round(weight, 6)))
    return result


def only(names):
    return [[(name, 1.0)] for name in names]


def chars(text):
    return ["<space>" if c == " " else c for c in text]


def test_characters_take_their_word_piece(tokenizer):
    assert taught(tokenizer, CHARS, chars("THE PLAYING")) == only(
        ["the"] * 3 + ["play"] * 5 + ["##ing"] * 3 + ["[SEP]"]
    )


def test_space_goes_with_the_next_word_or_the_last(tokenizer):
    assert taught(tokenizer, CHARS, chars(" CAT IT ")) == only(
        ["cat"] * 4 + ["it"] * 3 + ["it"] + ["[SEP]"]
    )


def test_text_without_words_takes_the_closing_token(tokenizer):
    assert taught(tokenizer, CHARS, []) == only(["[SEP]"])
    assert taught(tokenizer, CHARS, chars("  ")) == only(["[SEP]"] * 3)
    assert taught(tokenizer, CHARS, ["<blank>"]) == only(["[SEP]"] * 2)


def test_apostrophe_and_digits(tokenizer):
    assert taught(tokenizer, CHARS, chars("IT'S 42")) == only(
        ["it"] * 2 + ["'", "s"] + ["42"] * 3 + ["[SEP]"]
    )


def test_bpe_units_take_the_mean_by_characters(tokenizer):
    units = ["<unk>", "▁THEC", "AT", "▁PLAYI", "NGS"]
    # "thecat" is no word of the PLM: th, he, ... fall into single letters.
    rows = taught(tokenizer, units, ["▁PLAYI", "NGS"], "bpe")
    assert rows[0] == [("play", 0.8), ("##ing", 0.2)]
    assert rows[1] == [("##ing", 0.666667), ("##s", 0.333333)]
    assert rows[2] == [("[SEP]", 1.0)]


def test_bpe_joint_belongs_to_the_word_it_begins(tokenizer):
    tokens = ["▁THE", "▁", "C", "A", "▁PLAY", "ING"]
    rows = taught(tokenizer, BPE, tokens)
    assert [r[0][0] for r in rows] == ["the", "c", "c", "##a", "play", "##ing", "[SEP]"]


def test_bpe_bytes_make_up_one_character(tokenizer):
    rows = taught(tokenizer, BPE, ["<0xE4>", "<0xBD>", "<0xA0>", "▁CAT"], "bpe")
    assert rows == only(["你"] * 3 + ["cat", "[SEP]"])
    speller = TokenSpeller(BPE, "bpe")
    broken = speller([BPE.index("<0xE4>"), BPE.index("S")])
    assert broken.text == "\ufffds" and broken.spans == [(0, 1), (1, 2)]


def test_word_units(tokenizer):
    rows = taught(tokenizer, WORDS, ["the", "playing", "cat"])
    assert rows[1] == [("play", round(4 / 7, 6)), ("##ing", round(3 / 7, 6))]
    assert rows[0] + rows[2] == [("the", 1.0), ("cat", 1.0)]


def test_plm_units_are_the_identity(tokenizer):
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    for text in ["the cat is playing", "你好 the 世界", "it's [UNK] 42", "xyz"]:
        tokens = tokenizer.tokenize(text)
        assert taught(tokenizer, vocabulary, tokens) == only([*tokens, "[SEP]"])


def test_chinese_characters_are_the_identity(tokenizer):
    token_list = ["<blank>", "<unk>", *"你好世界今天气很", "<sos/eos>"]
    assert infer_token_type(token_list) == "char"
    tokens = list("今天天气很好")
    assert taught(tokenizer, token_list, tokens) == only([*tokens, "[SEP]"])


def test_unknown_symbol_is_the_plms(tokenizer):
    assert taught(tokenizer, CHARS, ["C", "<unk>", "<space>", "I", "T"]) == only(
        ["c", "[UNK]", "it", "it", "it", "[SEP]"]
    )
    speller = TokenSpeller(CHARS, None, unknown_text(tokenizer))
    spelling = speller([CHARS.index("<unk>"), CHARS.index("X")])
    assert spelling.text == "[UNK]x" and spelling.unknown == [0]
    # ESPnet's own unknown symbol is no word that the PLM lacks.
    assert align(spelling, tokenizer, PLM).unknown_text == []


def test_words_the_plm_lacks_are_reported(tokenizer):
    token_list = ["<blank>", "<unk>", "<space>", "☃", "C", "<sos/eos>"]
    speller = TokenSpeller(token_list, None, unknown_text(tokenizer))
    assert align(speller([3, 2, 4]), tokenizer, PLM).unknown_text == ["☃"]


def test_capitals_are_lowered_for_a_cased_plm(cased):
    names = taught(cased, CHARS, chars("THE CAT"))
    assert names == only(["the"] * 3 + ["cat"] * 4 + ["[SEP]"])
    kept = taught(cased, CHARS, chars("THE CAT"), case="keep")
    assert kept == only(["THE"] * 3 + ["CAT"] * 4 + ["[SEP]"])
    # A list with both cases means what it says.
    both = taught(cased, [*CHARS, "t"], chars("THE"))
    assert both == only(["THE"] * 3 + ["[SEP]"])


@pytest.mark.parametrize("accent", ["é", "e\u0301"])
def test_accents_that_the_plm_strips(tokenizer, accent):
    token_list = ["<blank>", "<unk>", "<space>", *"cafext", "é", "\u0301", "<sos/eos>"]
    tokens = [*"caf", *accent, "<space>", "t"]
    rows = taught(tokenizer, token_list, tokens)
    assert rows == only(["cafe"] * (3 + len(accent)) + ["t"] * 2 + ["[SEP]"])


def test_a_mark_after_the_last_letter_takes_the_letter_before(tokenizer):
    token_list = ["<blank>", "<unk>", "<space>", "c", "\u0301", "x", "<sos/eos>"]
    rows = taught(tokenizer, token_list, ["c", "\u0301", "<space>", "x"])
    assert rows == only(["c", "c", "x", "x", "[SEP]"])


def test_byte_level_units(tokenizer):
    token_list = ["<unk>", "the", "Ġcat", "Ġ", "ä", "½", "ł", "Ġä½łå¥½"]
    assert infer_token_type(token_list) == "hugging_face"
    tokens = ["the", "Ġcat", "Ġ", "ä", "½", "ł", "Ġä½łå¥½"]
    rows = taught(tokenizer, token_list, tokens)
    assert rows[:6] == only(["the", "cat", "你", "你", "你", "你"])
    assert rows[6:] == [[("你", 0.5), ("好", 0.5)], [("[SEP]", 1.0)]]


def test_letters_whose_lower_case_is_longer_keep_the_offsets():
    speller = TokenSpeller(["<unk>", "İ", "B"], "char")
    spelling = speller([1, 2])
    assert spelling.text == "İb" and spelling.spans == [(0, 1), (1, 2)]


def test_long_text_is_read_in_windows_that_overlap(tokenizer):
    text = "THE CAT IS PLAYING IT'S 42 THE CAT PLAYS IT IS THE CAT'S"
    complete = taught(tokenizer, CHARS, chars(text))
    for max_length in (3, 4, 7, 10, 19):
        assert taught(tokenizer, CHARS, chars(text), max_length=max_length) == complete
    speller = TokenSpeller(CHARS, None, "[UNK]")
    spelling = speller([CHARS.index(t) for t in chars(text)])
    alignment = align(spelling, tokenizer, 10)
    assert len(alignment.windows) > 2
    for window in alignment.windows:
        assert len(window) == 10
        assert window[0] == tokenizer.cls_token_id
        assert window[-1] == tokenizer.sep_token_id
    # But at the ends of the sentence no vector is taken from beside a cut.
    inner = {c % 10 for c in alignment.columns if 10 <= c < 20}
    assert inner <= set(range(2, 8))


@given(st.lists(st.sampled_from(CHARS), max_size=30), st.integers(3, 40))
def test_weights_of_every_token_sum_to_one(tokenizer, tokens, max_length):
    rows = taught(tokenizer, CHARS, tokens, max_length=max_length)
    assert len(rows) == len(tokens) + 1
    for row in rows:
        assert abs(sum(weight for _, weight in row) - 1) < 1e-5


def test_apply_is_the_weighted_mean(tokenizer):
    speller = TokenSpeller(WORDS, None, "[UNK]")
    sentences = [["playing", "cat"], [], ["the", "cat", "is", "playing", "the"]]
    alignments = [
        align(speller([WORDS.index(t) for t in s]), tokenizer, 5) for s in sentences
    ]
    lengths = [len(w) for a in alignments for w in a.windows]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(len(lengths), max(lengths), 3, generator=generator)
    for row, length in zip(hidden, lengths):
        row[length:] = float("nan")
    result = apply_alignments(alignments, hidden, lengths)
    expected, window = [], 0
    for item in alignments:
        size = len(item.windows)
        vectors = torch.cat(
            [hidden[window + n, : lengths[window + n]] for n in range(size)]
        )
        matrix = torch.zeros(item.n_tokens, len(vectors))
        matrix[item.rows, item.columns] = torch.tensor(item.weights)
        expected.append(matrix @ vectors)
        window += size
    torch.testing.assert_close(result, torch.cat(expected))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (CHARS, "char"),
        (BPE, "bpe"),
        (WORDS, "word"),
        (["[UNK]", "play", "##ing"], "hugging_face"),
        (["<unk>", "▁Ġgant", "Ġ", "▁##"], "bpe"),
        (["<blank>", "<unk>", "a", "b", "<noise>", "<sos/eos>"], "char"),
    ],
)
def test_token_type_is_inferred(tokens, expected):
    assert infer_token_type(tokens) == expected


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="token_type phn"):
        TokenSpeller(CHARS, "phn")
    with pytest.raises(UserError, match="case: 'upper'"):
        TokenSpeller(CHARS, "char", case="upper")
    with pytest.raises(ValueError, match="token id 99"):
        TokenSpeller(CHARS)([99])


def test_a_tokenizer_without_closing_token_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]")
    spelling = TokenSpeller(WORDS)([2])
    with pytest.raises(UserError, match="neither a sep nor an eos"):
        align(spelling, fast, PLM)
    ending = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", eos_token="the"
    )
    assert align(spelling, ending, PLM).windows == [[1, 1]]


def test_real_plm_reads_capitals(minilm):
    """MiniLM, the demo's teacher: every character of a FOTAQ-like sentence."""
    tokenizer = open_tokenizer(TeacherConfig(minilm, 384))
    rows = taught(tokenizer, CHARS, chars("SIMON'S WAND"))
    expected = ["simon"] * 5 + ["'"] + ["s"] + ["wand"] * 5 + ["[SEP]"]
    assert rows == only(expected)
