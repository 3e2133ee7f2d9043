"""The tokens of a text that somebody gives."""

import re
from collections.abc import Callable, Sequence

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import first_few
from espnet_cif_hkd.teachers.text.spelling import in_capitals

_UNKNOWN = "<unk>"


def known_tokens(
    text: str, tokenize: Callable[[str], list[str]], token_list: Sequence[str]
) -> list[str]:
    """Divide a text into tokens of the token list.

    If the token list has letters of one case only, the text gets this case, except for
    words that are tokens, such as ``<noise>``. ``<unk>`` is one token with any
    tokenizer.

    Args:
        text: The text.
        tokenize: ``text2tokens`` of ESPnet's tokenizers.
        token_list: All tokens.

    Raises:
        UserError: The text has symbols without a token.
    """
    known = set(token_list)
    case = _case(token_list)

    def cased(word: re.Match[str]) -> str:
        return word[0] if word[0] in known else case(word[0])

    symbols: list[str] = []
    for part in re.split(f"({_UNKNOWN})", " ".join(text.split())):
        spelled = re.sub(r"\S+", cased, part)
        symbols += [_UNKNOWN] if part == _UNKNOWN else tokenize(spelled)
    missing = dict.fromkeys(s.strip("▁") or s for s in symbols if s not in known)
    if missing:
        raise UserError(
            f"the model has no token for {first_few(map(repr, missing))} of the text: "
            "remove punctuation, write numbers and signs as words, and <unk> for what "
            "cannot be written"
        )
    return symbols


def _case(token_list: Sequence[str]) -> Callable[[str], str]:
    if in_capitals(token_list):
        return str.upper
    if in_capitals(map(str.swapcase, token_list)):
        return str.lower
    return str
