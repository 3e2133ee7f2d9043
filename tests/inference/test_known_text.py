"""Tokens of a text of the user: its case, and symbols that a model lacks."""

import pytest

from espnet_cif_hkd import UserError
from espnet_cif_hkd.inference.known_text import known_tokens

SYMBOLS = ["<blank>", "<unk>", "<noise>", "<space>", "<sos/eos>"]
CAPITALS = [*SYMBOLS, *"ABCDEFGH"]


def characters(text: str) -> list[str]:
    """As ESPnet's tokenizer with ``<noise>`` as a non-linguistic symbol."""
    found: list[str] = []
    for n, part in enumerate(text.split("<noise>")):
        found += ["<noise>"] * (n > 0)
        found += ["<space>" if one == " " else one for one in part]
    return found


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("bad  Cab", CAPITALS, ["B", "A", "D", "<space>", "C", "A", "B"]),
        ("BAD", [*SYMBOLS, *"abcd"], ["b", "a", "d"]),
        ("aB", [*SYMBOLS, *"abAB"], ["a", "B"]),
        ("\u6211", [*SYMBOLS, "\u6211"], ["\u6211"]),
        ("a <noise> b", CAPITALS, ["A", "<space>", "<noise>", "<space>", "B"]),
        ("a<unk>b", CAPITALS, ["A", "<unk>", "B"]),
        ("<unk>", CAPITALS, ["<unk>"]),
        ("", CAPITALS, []),
    ],
)
def test_the_case_is_that_of_the_tokens(
    text: str, tokens: list[str], expected: list[str]
) -> None:
    assert known_tokens(text, characters, tokens) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("bad, head!", "',', '!' of"),
        ("b\u00e9b\u00e9", "'\u00c9' of"),
        ("1234567", "'1', '2', '3', '4', '5' and 2 more of"),
    ],
)
def test_symbols_without_a_token_are_refused(text: str, named: str) -> None:
    with pytest.raises(UserError) as found:
        known_tokens(text, characters, CAPITALS)
    assert f"no token for {named} the text: remove punctuation" in str(found.value)
    assert "\n" not in str(found.value)


def test_pieces_of_a_word_are_named_without_its_mark() -> None:
    with pytest.raises(UserError, match=r"no token for '!' of"):
        known_tokens(
            "A !", lambda text: [f"\u2581{w}" for w in text.split()], ["\u2581A"]
        )
