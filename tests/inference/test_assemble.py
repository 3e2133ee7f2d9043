"""Pieces of text, words and segments."""

from collections.abc import Callable
from pathlib import Path

import pytest
from espnet2.text.build_tokenizer import build_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.inference import assemble
from espnet_cif_hkd.inference.assemble import (
    assembled,
    silent_tokens,
    text_pieces,
    word_borders,
)
from espnet_cif_hkd.inference.recognition import Recognition

DECODERS: dict[str, Callable[[list[str]], str]] = {
    "stripped": lambda tokens: "".join(tokens).replace("▁", " ").strip(),
    "joined by spaces": " ".join,
    "without special tokens": lambda tokens: "".join(t for t in tokens if t != "<s>"),
    "whole at the end": lambda tokens: "".join(tokens) if len(tokens) > 3 else "�",
    "reversed": lambda tokens: "".join(reversed(tokens)),
    "upper case at the end": lambda tokens: "".join(tokens).title(),
}


@given(
    st.lists(
        st.sampled_from(["a", "▁b", "▁", "<s>", "<space>", "你", "c d", ""]), min_size=1
    ),
    st.sampled_from(sorted(DECODERS)),
)
def test_joined_pieces_are_the_text_of_any_tokenizer(
    tokens: list[str], name: str
) -> None:
    decode = DECODERS[name]
    pieces = text_pieces(tokens, decode(tokens), decode)
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == decode(tokens)


@pytest.fixture(scope="module")
def sentencepieces(tmp_path_factory: pytest.TempPathFactory) -> str:
    import sentencepiece

    folder = tmp_path_factory.mktemp("bpe")
    text = folder / "text"
    text.write_text("so far so good\nthe goods are far\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "bpe"),
        vocab_size=300,
        byte_fallback=True,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return str(folder / "bpe.model")


def test_pieces_of_sentencepiece(sentencepieces: str) -> None:
    tokenizer = build_tokenizer("bpe", sentencepieces)
    cases = {
        ("▁so", "▁f", "ar"): ["so", " f", "ar"],
        ("▁", "s", "o", "▁"): ["", "s", "o", " "],
        ("▁so", "<0xE4>", "<0xBD>", "<0xA0>", "ar"): ["so", "", "", "你", "ar"],
        (): [],
    }
    for tokens, expected in cases.items():
        text = tokenizer.tokens2text(tokens)
        assert text_pieces(tokens, text, tokenizer.tokens2text) == expected
    unknown = ["▁so", "<unk>", "▁far"]
    text = tokenizer.tokens2text(unknown)
    pieces = text_pieces(unknown, text, tokenizer.tokens2text)
    assert pieces[0] == "so"
    assert pieces[2].endswith("far")


def test_pieces_of_characters_and_words() -> None:
    for kind, tokens, expected in [
        (
            "char",
            ["<space>", "A", "<space>", "B", "<space>"],
            [" ", "A", " ", "B", " "],
        ),
        ("char", ["你", "<unk>", "好"], ["你", "<unk>", "好"]),
        ("word", ["so", "far"], ["so", " far"]),
    ]:
        tokenizer = build_tokenizer(kind)
        text = tokenizer.tokens2text(tokens)
        assert text_pieces(tokens, text, tokenizer.tokens2text) == expected


def test_pieces_of_a_hugging_face_tokenizer(tmp_path: Path) -> None:
    from tiny_bert import build_tiny_bert

    tokenizer = build_tokenizer("hugging_face", str(build_tiny_bert(tmp_path / "bert")))
    tokens = tokenizer.text2tokens("abc ab")
    text = tokenizer.tokens2text(tokens)
    pieces = text_pieces(tokens, text, tokenizer.tokens2text)
    assert "".join(pieces) == text
    assert len(pieces) == len(tokens)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["D", "O", "N", "'", "T", " ", "G", "O"], [("DON'T", 0, 5), ("GO", 6, 8)]),
        (["so", " far", ",", " no"], [("so", 0, 1), ("far,", 1, 3), ("no", 3, 4)]),
        (["你", "好", "吗"], [("你", 0, 1), ("好", 1, 2), ("吗", 2, 3)]),
        (["你好", "吗", "？"], [("你好", 0, 1), ("吗？", 1, 3)]),
        (["你", "A", "P", "P", "好"], [("你", 0, 1), ("APP", 1, 4), ("好", 4, 5)]),
        (["他", "说", "：", "“", "好", "。", "”"], 3),
        ([" ", "a", " "], [("a", 1, 2)]),
        (["", "a", "", "b"], [("ab", 1, 4)]),
        (["a b", " c"], [("a b", 0, 1), ("c", 1, 2)]),
        (["", " ", ""], []),
        (["カ", "ー", "e", "\u0301"], [("カ", 0, 1), ("ー", 1, 2), ("e\u0301", 2, 4)]),
        ([], []),
    ],
)
def test_words(pieces: list[str], expected: list[tuple[str, int, int]] | int) -> None:
    found = word_borders(pieces)
    if isinstance(expected, int):
        assert len(found) == expected
        assert "".join(text for text, _, _ in found) == "".join(pieces)
    else:
        assert found == expected


@given(
    st.lists(st.text("a ,.(」「你好ー'é\u0301\u3000", max_size=3).map(str), max_size=12)
)
def test_words_have_all_visible_text_and_share_no_token(pieces: list[str]) -> None:
    spans = [(n / 10, n / 10 + 0.1) for n in range(len(pieces))]
    found = assembled(
        range(len(pieces)), pieces, pieces, spans, 0.1 * len(pieces) + 0.1
    ).validate()
    words = "".join("".join(word.text.split()) for word in found.words)
    assert words == "".join("".join(pieces).split())
    covered = [n for word in found.words for n in range(word.first, word.last)]
    assert len(covered) == len(set(covered))


def spoken(
    words: list[tuple[str, float, float]], confidence: float | None = None
) -> Recognition:
    pieces = [f" {text}" for text, _, _ in words]
    spans = [(start, end) for _, start, end in words]
    sure = [confidence] * len(words)
    return assembled(
        range(len(words)), pieces, pieces, spans, words[-1][2], sure
    ).validate()


def test_segments_end_at_pauses() -> None:
    found = spoken([("so", 0.0, 0.3), ("far", 0.4, 0.8), ("good", 1.4, 2.0)], 0.5)
    assert [(one.text, one.start, one.end) for one in found.segments] == [
        ("so far", 0.0, 0.8),
        ("good", 1.4, 2.0),
    ]
    assert found.segments[0].confidence == 0.5


def test_a_long_segment_is_cut_at_its_longest_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assemble, "LONGEST", 1.0)
    found = spoken([("a", 0.0, 0.4), ("b", 0.5, 0.9), ("c", 1.1, 1.4), ("d", 1.4, 3.0)])
    assert [one.text for one in found.segments] == ["a b", "c", "d"]


@pytest.mark.slow
def test_hours_of_words_do_not_exhaust_the_stack() -> None:
    words = [("a", float(n), n + (0.9 if n % 3 else 0.1)) for n in range(5000)]
    assert len(spoken(words).segments) > 1000


def test_confidence_of_a_word_includes_the_spaces_beside_it() -> None:
    pieces = ["a", "b", " ", "c"]
    spans = [(n / 10, n / 10 + 0.1) for n in range(4)]
    sure = [0.9, 0.8, 0.5, 0.7]
    found = assembled(range(4), pieces, pieces, spans, 1.0, sure)
    assert [word.confidence for word in found.words] == pytest.approx(
        [0.9 * 0.8 * 0.5, 0.5 * 0.7]
    )
    unknown = assembled(range(4), pieces, pieces, spans, 1.0)
    assert [word.confidence for word in unknown.words] == [None, None]


def test_silent_tokens() -> None:
    pieces, symbols = ["", " ", "", "a"], ["▁", "<space>", "<0xE4>", "▁a"]
    assert silent_tokens(pieces, symbols) == [True, True, False, False]
