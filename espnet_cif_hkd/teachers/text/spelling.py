"""The text of a sequence of ASR token ids, and the characters of each token."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from espnet_cif_hkd.errors import UserError

TOKEN_TYPES = ("char", "bpe", "word", "hugging_face")
CASES = ("auto", "keep", "lower")

_SPACE = "<space>"
_UNKNOWN = {"<unk>", "[UNK]", "<UNK>"}
# Names such as <blank>, <sos/eos>, <noise>, [CLS]: symbols, not text.
_SYMBOL = re.compile(r"<[^<>\s]+>|\[[A-Z]+\]")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Spelling:
    """Text of a token sequence.

    Attributes:
        text: text for the PLM.
        spans: characters ``[start, end)`` of each token in ``text``; start == end for a
            token without text, at its position.
        unknown: indices of the ``<unk>`` tokens.
    """

    text: str
    spans: list[tuple[int, int]]
    unknown: list[int]


class TokenSpeller:
    """Spells token ids of an ESPnet token list.

    Args:
        token_list: tokens, as ESPnet passes them to a model.
        token_type: "char", "bpe" (sentencepiece), "word" or "hugging_face"; None
            infers it from the tokens.
        unknown_text: text of ``<unk>``: the unknown token of the PLM's tokenizer, or
            "".
        case: "lower" changes the text to lower case, "keep" does not; "auto" does if no
            token has a lower-case letter, because a cased PLM does not understand
            transcripts in capitals.

    Raises:
        UserError: a token type without characters, or an unknown option.

    Attributes:
        token_type: given or inferred token type.
        style: spelling of the tokens: "char", "bpe", "word", "wordpiece" or "bytes".
    """

    def __init__(
        self,
        token_list: Sequence[str],
        token_type: str | None = None,
        unknown_text: str = "",
        case: str = "auto",
    ):
        self.token_type = token_type or infer_token_type(token_list)
        if self.token_type not in TOKEN_TYPES:
            raise UserError(
                f"token_type {self.token_type}: its tokens do not spell text, so no "
                f"PLM can teach them; use one of {', '.join(TOKEN_TYPES)}"
            )
        if case not in CASES:
            raise UserError(f"case: {case!r} is unknown; use one of {', '.join(CASES)}")
        self.style = self.token_type
        if self.style == "hugging_face":
            self.style = _hugging_face_style(token_list)
        self.lower = case == "lower" or (case == "auto" and in_capitals(token_list))
        self._pieces = [_piece(t, self.style, unknown_text) for t in token_list]
        self._unknown = {i for i, t in enumerate(token_list) if t in _UNKNOWN}

    def __call__(self, ids: Sequence[int]) -> Spelling:
        """Return text and spans of U token ids without ``<eos>``.

        Raises:
            ValueError: an id is outside of the token list.
        """
        data = bytearray()
        places: list[tuple[int, int]] = []
        for i in ids:
            if not 0 <= i < len(self._pieces):
                raise ValueError(f"token id {i} is outside of the token list")
            joint, piece = self._pieces[i]
            # The space before a word belongs to no token, and a text does not begin
            # with one.
            if data:
                data += joint
            start = len(data)
            data += piece
            places.append((start, len(data)))
        text, char_of_byte = _decode(bytes(data))
        spans = [
            (char_of_byte[start], char_of_byte[end - 1] + 1)
            if end > start
            else (char_of_byte[start], char_of_byte[start])
            for start, end in places
        ]
        unknown = [n for n, i in enumerate(ids) if i in self._unknown]
        if self.lower:
            text = _lower(text, [spans[n] for n in unknown])
        return Spelling(text, spans, unknown)

    def joined(self, token_id: int) -> str:
        """Return the text of one token with the space before it; "" for a symbol."""
        text, _ = _decode(b"".join(self._pieces[token_id]))
        return _lower(text, []) if self.lower else text

    def text_of(self, token_id: int) -> str:
        """Return the text of one token; "" for a symbol."""
        return self([token_id]).text


def infer_token_type(token_list: Sequence[str]) -> str:
    """Infer the token type from a token list.

    "char" if ``<space>`` is in it or every token but symbols is one character,
    "bpe" if tokens begin with ▁, "hugging_face" if they begin with ## or Ġ, else
    "word".
    """
    tokens = [t for t in token_list if not _SYMBOL.fullmatch(t)]
    if _SPACE in token_list:
        return "char"
    if any(t.startswith("▁") for t in tokens):
        return "bpe"
    if any(t.startswith("##") and len(t) > 2 for t in tokens):
        return "hugging_face"
    if any(t.startswith("Ġ") for t in tokens):
        return "hugging_face"
    if all(len(_without_marks(t)) <= 1 for t in tokens):
        return "char"
    return "word"


def _without_marks(token: str) -> str:
    return "".join(c for c in token if not unicodedata.combining(c))


def in_capitals(texts: Iterable[str]) -> bool:
    """Whether tokens or texts have capitals and no small letters.

    Symbols such as ``<blank>`` do not count.
    """
    letters = [c for text in texts for c in _SYMBOL.sub("", text)]
    return any(map(str.isupper, letters)) and not any(map(str.islower, letters))


def _hugging_face_style(token_list: Sequence[str]) -> str:
    if any(t.startswith("▁") for t in token_list):
        return "bpe"
    if any(t.startswith("Ġ") for t in token_list):
        return "bytes"
    return "wordpiece"


def _piece(token: str, style: str, unknown_text: str) -> tuple[bytes, bytes]:
    """Return the text before a token (a space or nothing) and the text of the token."""
    if token in _UNKNOWN:
        return (b" " if style in ("word", "wordpiece") else b""), unknown_text.encode()
    if token == _SPACE:
        return b"", b" "
    byte = _BYTE.fullmatch(token)
    if byte and style == "bpe":
        return b"", bytes([int(byte.group(1), 16)])
    if _SYMBOL.fullmatch(token):
        return b"", b""
    if style == "bpe":
        if not token.strip("▁"):
            return b"", b" " * len(token)
        if token.startswith("▁"):
            return b" ", token[1:].replace("▁", " ").encode()
        return b"", token.replace("▁", " ").encode()
    if style == "bytes":
        return b"", bytes(_BYTE_OF_CHAR.get(c, ord("?")) for c in token)
    if style == "wordpiece":
        if token.startswith("##") and len(token) > 2:
            return b"", token[2:].encode()
        return b" ", token.encode()
    if style == "word":
        return b" ", token.encode()
    return b"", token.encode()


def _lower(text: str, keep: Sequence[tuple[int, int]]) -> str:
    """Change text outside of the spans ``keep`` to lower case, without a new length."""
    # A letter with a longer lower case would shift the text after it, so it is kept.
    chars = (
        list(text.lower())
        if text.isascii()
        else [c.lower() if len(c.lower()) == 1 else c for c in text]
    )
    for start, end in keep:
        chars[start:end] = text[start:end]
    return "".join(chars)


def _byte_alphabet() -> dict[str, int]:
    """Return the printable characters of byte-level BPE with their bytes.

    Printable Latin-1 characters are their own bytes; the other bytes have the
    characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(b): b for b in printable}
    others = [b for b in range(256) if b not in set(printable)]
    alphabet.update({chr(0x100 + n): b for n, b in enumerate(others)})
    return alphabet


_BYTE_OF_CHAR = _byte_alphabet()


def _decode(data: bytes) -> tuple[str, Sequence[int]]:
    """Decode UTF-8; also return the index of the character of each byte.

    Each byte that is not UTF-8 becomes U+FFFD. The list of indices has one more item
    than ``data``: the length of the text.
    """
    if data.isascii():
        return data.decode("ascii"), range(len(data) + 1)
    chars: list[str] = []
    char_of_byte: list[int] = []
    for char in data.decode("utf-8", errors="surrogateescape"):
        broken = "\udc80" <= char <= "\udcff"
        size = 1 if broken else len(char.encode())
        char_of_byte += [len(chars)] * size
        chars.append("\ufffd" if broken else char)
    char_of_byte.append(len(chars))
    return "".join(chars), char_of_byte
