"""Pieces of Whisper's tokenizer as a sentencepiece model."""

import pytest
import sentencepiece
from bpe_whisper import build_tokenizer
from transformers import PreTrainedTokenizerFast

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.speech.whisper_pieces import (
    SPACE,
    WhisperPieces,
    token_list,
)

TEXTS = [
    "the other brother of the mother is bothered",
    "don't bother the others, it's o'clock there",
    "this is the thing that they think of",
    "another theme, another theory",
]
SPOKEN = [text.replace(",", "").upper() for text in TEXTS]
UNSEEN = ["THEOTHERS BROTHERTHING", "DOOR MOOD THINS"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(build_tokenizer(path, TEXTS)))


def model_of(pieces, tmp_path):
    pieces.write_model(tmp_path / "bpe.model")
    return sentencepiece.SentencePieceProcessor(str(tmp_path / "bpe.model"))


def most(tokenizer, texts):
    """The number of tokens that have only the characters of the texts."""
    with pytest.raises(UserError, match="Whisper has") as error:
        WhisperPieces(tokenizer, texts, 10**6)
    return int(str(error.value).split("Whisper has ")[1].split()[0])


def test_words_are_divided_as_by_whisper(tokenizer, tmp_path):
    pieces = WhisperPieces(tokenizer, SPOKEN, most(tokenizer, SPOKEN))
    model = model_of(pieces, tmp_path)
    longest = 0
    for text in SPOKEN + UNSEEN:
        found = model.encode(text, out_type=str)
        ids = tokenizer(f" {text.lower()}", add_special_tokens=False).input_ids
        wanted = [tokenizer.decode([i]).replace(" ", SPACE).upper() for i in ids]
        assert found == wanted
        assert model.decode(found) == text
        known = dict(zip(pieces.pieces, pieces.ids, strict=True))
        assert [known[one] for one in found] == ids
        longest = max(longest, *map(len, found))
    assert longest > 4


def test_fewer_pieces_still_write_all_and_keep_the_words_of_the_text(
    tokenizer, tmp_path
):
    every = model_of(
        WhisperPieces(tokenizer, SPOKEN, most(tokenizer, SPOKEN)), tmp_path
    )
    needed = [SPOKEN[2]]
    with pytest.raises(UserError, match=r"the text needs (\d+)") as error:
        WhisperPieces(tokenizer, needed, 1)
    least = int(str(error.value).split("needs ")[1].split(",")[0])
    pieces = WhisperPieces(tokenizer, needed, least)
    few = model_of(pieces, tmp_path)
    assert len(pieces.pieces) == least
    assert few.encode(needed[0], out_type=str) == every.encode(needed[0], out_type=str)
    assert few.decode(few.encode("FINE NIGHT", out_type=str)) == "FINE NIGHT"


def test_small_letters_stay_small(tokenizer):
    pieces = WhisperPieces(tokenizer, [TEXTS[2]], 30)
    assert f"{SPACE}the" in pieces.pieces
    assert not any(char.isupper() for piece in pieces.pieces for char in piece)
    tokens = token_list(pieces.pieces)
    assert tokens[:2] == ["<blank>", "<unk>"] and tokens[-1] == "<sos/eos>"
    assert len(set(tokens)) == len(tokens) == 33


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["  "], "the text has no words"),
        (["THÉ THE"], "no token for 'é'"),
        (["THE"], "100000 pieces: the text needs"),
    ],
)
def test_a_wrong_text_is_one_line(tokenizer, texts, message):
    with pytest.raises(UserError, match=message) as error:
        WhisperPieces(tokenizer, texts, 100_000)
    assert "\n" not in str(error.value)
