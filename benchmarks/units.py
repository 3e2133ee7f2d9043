"""The recogniser's units, read from a folder of stage 5 or from a training."""

from collections.abc import Callable
from pathlib import Path

from espnet2.text.build_tokenizer import build_tokenizer
from espnet2.text.token_id_converter import TokenIDConverter


def encoder(
    kind: str, tokens: list[str], bpemodel: str | None
) -> Callable[[str], list[int]]:
    """A function from a text to the ids of its units.

    Args:
        kind: ESPnet's token type.
        tokens: the token list.
        bpemodel: of BPE; ignored for other types.
    """
    tokenizer = build_tokenizer(
        kind, bpemodel=bpemodel, space_symbol="<space>", delimiter=" "
    )
    ids = TokenIDConverter(tokens, "<unk>").tokens2ids

    def encode(text: str) -> list[int]:
        return ids(tokenizer.text2tokens(text))  # type: ignore[no-any-return]

    return encode


def read_units(folder: Path) -> tuple[str, list[str], Callable[[str], list[int]]]:
    """Token type, token list and :func:`encoder` of a folder with ``tokens.txt``."""
    model = folder / "bpe.model"
    kind = "bpe" if model.is_file() else folder.name
    tokens = (folder / "tokens.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return kind, tokens, encoder(kind, tokens, str(model))
