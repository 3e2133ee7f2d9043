"""PLM tokens that are, or begin with, the space before a word."""

import pytest
from tiny_teachers import fast_tokenizer

from espnet_cif_hkd.teachers.text.alignment import align
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller

KINDS = [
    "metaspace-always",
    "metaspace-first",
    "metaspace-never",
    "xlmr",
    "prepend",
    "bytes",
    "bytes-prefix",
    "bytes-untrimmed",
]
CHARS = ["<blank>", "<unk>", "<space>", *"thecas你好世界Ġ", "<sos/eos>"]


def taught(kind, text, token_list=CHARS, tokens=None):
    """For each token and ``<eos>`` the PLM tokens that teach it, with their weights."""
    tokenizer = fast_tokenizer(kind)
    speller = TokenSpeller(token_list)
    tokens = tokens or ["<space>" if c == " " else c for c in text]
    spelling = speller([token_list.index(t) for t in tokens])
    assert spelling.text == text
    alignment = align(spelling, tokenizer, 100)
    ids = alignment.windows[0]
    rows = [[] for _ in range(alignment.n_tokens)]
    for row, column, weight in zip(
        alignment.rows, alignment.columns, alignment.weights, strict=True
    ):
        name = tokenizer.convert_ids_to_tokens(ids[column])
        rows[row].append((name, round(weight, 4)))
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text", ["你好", "你", "the 你", "你 the 世界", " 你好", "cat 你 ", "a  你"]
)
def test_a_space_takes_no_part_of_a_character(kind, text):
    for char, row in zip(text, taught(kind, text), strict=False):
        if not char.isspace():
            assert all(name.strip("▁Ġ") for name, _ in row), (char, row)
        assert sum(weight for _, weight in row) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS[:5])
def test_chinese_characters_have_one_piece_each(kind):
    rows = taught(kind, "你好")
    assert rows == [[("你", 1.0)], [("好", 1.0)], [("</s>", 1.0)]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_takes_a_space_or_the_word_after_it(kind):
    row = taught(kind, "你 the")[1]
    assert [name.strip("▁Ġ") for name, _ in row] in ([""], ["the"], ["t"]), row
    word = taught(kind, "cat 你")[3]
    assert len(word) == 1 and word[0][0].strip("▁Ġ") in ("", "你", "ä"), word


@pytest.mark.parametrize("kind", KINDS[5:])
def test_bytes_of_a_character_share_it(kind):
    row = taught(kind, "the 你")[4]
    assert [weight for _, weight in row] == [pytest.approx(1 / 3, abs=1e-3)] * 3
    assert not any(name.startswith("Ġ") for name, _ in row)


def test_a_letter_that_looks_like_a_mark_is_a_letter():
    """The Maltese Ġ is a token of its own in a vocabulary of characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {"[UNK]": 0, "[SEP]": 1, "Ġ": 2, "a": 3}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", sep_token="[SEP]"
    )
    spelling = TokenSpeller(CHARS)([CHARS.index("Ġ"), CHARS.index("a")])
    alignment = align(spelling, fast, 20)
    assert alignment.windows == [[2, 3, 1]] and alignment.columns == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_the_plm_take_their_own_vectors(kind):
    """Where the recogniser's units are the PLM's, the alignment is the identity.

    Bytes of a character are no characters: each takes the vectors of all of them.
    """
    tokenizer = fast_tokenizer(kind)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    token_list = ["<blank>", *vocabulary[3:], "<sos/eos>"]
    tokens = [t for t in tokenizer.tokenize("the 你 the") if t in token_list]
    speller = TokenSpeller(token_list)
    spelling = speller([token_list.index(t) for t in tokens])
    alignment = align(spelling, tokenizer, 100)
    ids = alignment.windows[0]
    row = [[] for _ in range(alignment.n_tokens)]
    for n, column in zip(alignment.rows, alignment.columns, strict=True):
        row[n].append(tokenizer.convert_ids_to_tokens(ids[column]))
    own = [[token] for token in tokens]
    if kind.startswith("bytes"):
        assert tokens[2:5] == ["ä", "½", "ł"]
        own[2:5] = [tokens[2:5]] * 3
    assert row == [*own, ["</s>"]]


def test_a_closing_token_that_is_not_the_last():
    """XLNet ends a sentence with <sep> <cls>: <sep> teaches <eos>."""
    from tokenizers import processors

    tokenizer = fast_tokenizer("xlmr", cls_token="<s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s> <s>", special_tokens=[("</s>", 2), ("<s>", 0)]
    )
    spelling = TokenSpeller(CHARS)([CHARS.index("你")])
    for chosen in (spelling, TokenSpeller(CHARS)([])):
        alignment = align(chosen, tokenizer, 20)
        window = alignment.windows[0]
        assert window[-2:] == [2, 0] and window.count(2) == 1
        assert alignment.columns[-1] == len(window) - 2
