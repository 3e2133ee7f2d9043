"""Text of an exported model against ESPnet's tokenizers."""

import random

import pytest
import sentencepiece
from espnet2.text.build_tokenizer import build_tokenizer

from espnet_cif_hkd.inference.onnx_folder import decoder_of


@pytest.mark.parametrize("token_type", ["char", "word", "phn"])
def test_symbols_are_joined_as_espnets_tokenizer_joins_them(token_type):
    symbols = ["<space>", "a", "<space>", "bc", "<unk>", "<space>"]
    expected = build_tokenizer(token_type, g2p_type=None).tokens2text(symbols)
    assert decoder_of(token_type)(symbols) == expected


def test_pieces_bytes_and_unknown_ones_as_sentencepiece(tmp_path):
    text, prefix = tmp_path / "text", tmp_path / "bpe"
    text.write_text("the cat sat on the mat\na dog ate that cat\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(prefix),
        vocab_size=290,
        byte_fallback=True,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = build_tokenizer("bpe", f"{prefix}.model")
    processor = sentencepiece.SentencePieceProcessor(f"{prefix}.model")
    pieces = [processor.id_to_piece(n) for n in range(processor.get_piece_size())]
    pieces = [one for one in pieces if one not in ("<s>", "</s>")]
    by_bytes = [one for one in pieces if one.startswith("<0x")]
    assert len(by_bytes) == 256 and len(pieces) > 270
    decode, generator = decoder_of("bpe"), random.Random(0)
    cases = [tokenizer.text2tokens(one) for one in ("a ä 中 cat", "😀", " the ")]
    assert any("<0xE4>" in one for one in cases)
    for _ in range(5000):
        character = generator.choice("ä中😀\u2581\u0800\uffff").encode()
        cut = character[: generator.randint(1, 4)]  # possibly incomplete
        parts = [
            [generator.choice(pieces[256:])],
            [generator.choice(by_bytes)],
            [f"<0x{one:02X}>" for one in cut],
            ["▁"],
            ["<unk>"],
        ]
        chosen = generator.choices(parts, k=generator.randint(0, 6))
        cases.append([one for part in chosen for one in part])
    for case in cases:
        assert decode(case) == tokenizer.tokens2text(case), case
