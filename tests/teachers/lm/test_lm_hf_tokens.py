"""Which token of a Hugging Face LM belongs to which token of a unit."""

import pytest
from tiny_bert import CHINESE, build_tiny_bert
from tiny_teachers import fast_tokenizer

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.hf_tokens import LMTokens

UNKNOWN = 3


def unit(*labels):
    return ["<blank>", "<unk>", *labels, "<sos/eos>"]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("bert")
    build_tiny_bert(folder / "plain")
    return AutoTokenizer.from_pretrained(folder / "plain")


def word_level(*words):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", *words]
    vocab = {name: n for n, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def mapped(tokenizer, tokens, token_type=None, case="auto"):
    """The name of the LM's token of each label."""
    found = LMTokens("x", tokenizer, tokens, token_type, case, UNKNOWN)
    assert found.ids[0] == found.ids[1] == found.ids[-1] == UNKNOWN
    assert len(found.ids) == len(tokens)
    return tokenizer.convert_ids_to_tokens(found.ids[2:-1].tolist())


def test_word_pieces(wordpiece):
    tokens = unit("the", "##ing", "##s", "cat", "'")
    assert mapped(wordpiece, tokens) == ["the", "##ing", "##s", "cat", "'"]
    # The same text in the style of SentencePiece and as words.
    assert mapped(wordpiece, unit("▁the", "ing", "▁cat")) == ["the", "##ing", "cat"]
    assert mapped(wordpiece, unit("THE", "CAT"), "word") == ["the", "cat"]


def test_chinese_characters(wordpiece):
    assert mapped(wordpiece, unit(*CHINESE)) == CHINESE


@pytest.mark.parametrize("kind", ["bytes", "xlmr", "metaspace-always"])
def test_marks_of_a_space(kind):
    tokens = unit("▁the", "s", "c", "a")
    marked = "Ġthe" if kind == "bytes" else "▁the"
    assert mapped(fast_tokenizer(kind), tokens, "bpe") == [marked, "s", "c", "a"]
    assert mapped(fast_tokenizer(kind), unit("the"), "word") == [marked]


def test_a_space_of_characters():
    tokens = unit("<space>", "t", "h")
    assert mapped(fast_tokenizer("bytes"), tokens) == ["Ġ", "t", "h"]
    assert mapped(fast_tokenizer("xlmr"), tokens) == ["▁", "t", "h"]


def test_characters_of_several_bytes_have_no_token_of_bytes():
    with pytest.raises(UserError, match=r"no token for 2 of 3 units \(é, 你\)"):
        mapped(fast_tokenizer("bytes"), unit("é", "a", "你"), "char")


def test_phones_are_found_by_their_names():
    phones = ["AH0", "T", "SIL"]
    assert mapped(word_level(*phones), unit(*phones), "word") == phones
    assert mapped(word_level(*phones), unit(*phones), "word", "keep") == phones


def test_units_without_token_are_named(wordpiece):
    words = ["dog", "the", *(f"horse{n}" for n in range(9))]
    with pytest.raises(UserError, match=r"for 10 of 11 units \(dog, .* and 5 more\)"):
        mapped(wordpiece, unit(*words), "word")


def test_units_that_share_a_token_are_named(wordpiece):
    with pytest.raises(UserError, match=r"share a token of it \(THE and the\)"):
        mapped(wordpiece, unit("THE", "the"), "word", "lower")


def examined(tokenizer, tokens, texts, token_type=None):
    made = LMTokens("x", tokenizer, tokens, token_type, "auto", UNKNOWN)
    return made.examine([[tokens.index(token) for token in text] for text in texts])


def test_units_are_compared_with_the_tokens_in_their_context(wordpiece):
    words = unit("the", "cat", "play", "##ing")
    texts = [["the", "cat"], ["play", "##ing", "the"], ["the", "<unk>"], []]
    assert examined(wordpiece, words, texts, "hugging_face") == []
    assert examined(wordpiece, unit(*CHINESE), [CHINESE[:4]]) == []
    assert examined(fast_tokenizer("xlmr"), unit("▁the", "▁cat"), [["▁cat"]]) == []
    # GPT-2 has no space before the first word.
    assert examined(fast_tokenizer("bytes"), unit("▁the"), [["▁the", "▁the"]]) == []


def test_characters_that_the_tokenizer_joins_are_refused(wordpiece):
    letters = unit(*"thecaisnp", *CHINESE[:2])
    with pytest.raises(UserError, match=r"one token of 100.0% of .* \(t, h, e\)"):
        examined(wordpiece, letters, ["the"], "char")
    mostly = [CHINESE[:2]] * 100 + [list("it"), list("the")]
    letters = unit(*"the", *CHINESE[:2], "i")
    (remark,) = examined(wordpiece, letters, mostly, "char")
    assert "does not make one token of 2.4% of the units" in remark
