"""Text of a stream that grows with its tokens, whatever a tokenizer changes later."""

import random
from itertools import accumulate

import pytest
from tiny_stream import spell

from espnet_cif_hkd.inference.partial import GrowingPassage
from espnet_cif_hkd.search.stepwise import StreamedToken

CLEANED = [(" ##", ""), (" ' ", "'"), (" n't", "n't"), (" .", "."), (" ,", ",")]


def cleaning(symbols):
    """As tokenizers of Hugging Face with WordPieces."""
    text = " ".join(symbols)
    for before, after in CLEANED:
        text = text.replace(before, after)
    return text


def shouting(symbols):
    """Changes characters, not only spaces."""
    text = " ".join(symbols)
    return text.upper() if "!" in symbols else text


def utf8(symbols):
    return b"".join(bytes.fromhex(one) for one in symbols).decode(errors="replace")


def grown(symbols, decode):
    """The texts after each token."""
    passage, texts = GrowingPassage(symbols, decode), []
    for place in range(len(symbols)):
        passage.add(StreamedToken(place, -0.1), (place, place + 1.0), place + 1.0)
        texts.append(passage.result().validate().text)
    return texts


@pytest.mark.parametrize(
    ("symbols", "decode", "pieces"),
    [
        ("don ' t go away ##s .", cleaning, "don| '|t| go| away|s|."),
        ("it ' s , he say ##s n't", cleaning, "it| '|s|,| he| say|s|n't"),
        ("so far ! no", shouting, "so| far| !| NO"),
        ("a <space> <space> b", spell, "a| | |b"),
        ("61 e4 b8 ad 62", utf8, "a|||中|b"),
        ("61 e4 62 20", utf8, "a||\ufffdb| "),
    ],
)
def test_what_each_token_adds(symbols, decode, pieces):
    found = grown(symbols.split(), decode)
    assert found == list(accumulate(pieces.split("|")))


def test_text_is_that_of_the_tokenizer_but_for_spaces():
    generator = random.Random(0)
    symbols = ["don", "'", "t", "##s", "n't", ".", ",", "go"]
    for _ in range(300):
        chosen = generator.choices(symbols, k=12)
        texts = grown(chosen, cleaning)
        for count, text in enumerate(texts, 1):
            assert texts[-1].startswith(text)
            expected = cleaning(chosen[:count])
            assert text.split() == expected.split() or "'" in chosen
            assert "".join(text.split()) == "".join(expected.split())


def test_whether_a_token_begins_a_word_after_a_change():
    symbols = ["don", "'", "t", "go", "##es"]
    passage = GrowingPassage(symbols, cleaning)
    for place in range(3):
        passage.add(StreamedToken(place, -0.1), (place, place + 1.0), place + 1.0)
    assert passage.begins_word(3) and not passage.begins_word(4)
