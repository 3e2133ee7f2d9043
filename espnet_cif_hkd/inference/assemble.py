"""From tokens with times to a :class:`Recognition`: text, words and segments.

This module needs neither torch nor ESPnet, so that exported models use it as well.
"""

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

from espnet_cif_hkd.inference.recognition import (
    Flag,
    Recognition,
    Segment,
    Token,
    Word,
)

# A silence between words that ends a segment, and the longest segment, in seconds.
PAUSE = 0.5
LONGEST = 20.0

_SPACES = ("<space>", "▁")
# Ranges of Chinese characters, and of the scripts that are written without spaces.
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_UNSPACED = ((0x3040, 0x30FF), (0x31F0, 0x31FF), *_HAN)
Span = tuple[float, float]


def text_pieces(
    tokens: Sequence[str], text: str, decode: Callable[[list[str]], str]
) -> list[str]:
    """Divide a text into the pieces that its tokens add.

    Args:
        tokens: Symbols of the token list.
        text: Text of these tokens.
        decode: The text of symbols, such as ``tokens2text`` of ESPnet's tokenizers.

    Returns:
        One piece for each token, possibly empty; joined, they are ``text``.

    Example:
        >>> spell = lambda tokens: "".join(tokens).replace("▁", " ").strip()
        >>> text_pieces(["▁so", "▁", "far", "▁"], "so far", spell)
        ['so', '', ' far', '']
    """
    pieces = [token if token not in _SPACES else " " for token in tokens]
    if "".join(pieces) == text:
        return pieces
    pieces = [token.replace("▁", " ") for token in tokens]
    if pieces:
        pieces[0] = pieces[0].removeprefix(" ")
    if "".join(pieces) == text:
        return pieces
    # The text of the first k tokens is, as far as later tokens do not change it, the
    # beginning of the text.
    ends = [_common(decode(list(tokens[:n])), text) for n in range(1, len(tokens))]
    borders = [0, *accumulate(ends, max), len(text)]
    return [text[a:b] for a, b in pairwise(borders)][: len(tokens)]


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    for length, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return length
    return min(len(one), len(other))


def silent_tokens(pieces: Sequence[str], symbols: Sequence[str]) -> list[bool]:
    """Whether each token is no sound: white space, or a lone word mark.

    Args:
        pieces: Result of :func:`text_pieces`.
        symbols: The tokens in the token list.
    """
    return [
        piece.isspace() or not (piece or symbol.strip("▁"))
        for piece, symbol in zip(pieces, symbols)
    ]


def assembled(
    ids: Sequence[int],
    symbols: Sequence[str],
    pieces: Sequence[str],
    spans: Sequence[Span],
    duration: float,
    confidences: Sequence[float | None] | None = None,
    score: float | None = None,
    flags: Sequence[Flag] = (),
) -> Recognition:
    """Make the result of one hypothesis.

    Args:
        ids: Token ids, ``<eos>`` excluded.
        symbols: Their symbols in the token list.
        pieces: Result of :func:`text_pieces`.
        spans: Start and end of each token in seconds.
        duration: Length of the audio in seconds.
        confidences: Probability that each token is right; None: not computed.
        score: Log-probability of the hypothesis in the search.
        flags: Warnings.

    Returns:
        A consistent result: without tokens if the duration is 0.
    """
    known = confidences if confidences is not None else [None] * len(ids)
    tokens = tuple(
        Token(piece, symbol, index, *span, confidence)
        for piece, symbol, index, span, confidence in zip(
            pieces, symbols, ids, spans, known, strict=True
        )
    )
    return of_tokens(tokens, duration, score, flags)


def of_tokens(
    tokens: Sequence[Token],
    duration: float,
    score: float | None = None,
    flags: Sequence[Flag] = (),
) -> Recognition:
    """Make the result of tokens: their text, words and segments.

    Args:
        tokens: In order of time.
        duration: Length of the audio in seconds.
        score: Log-probability of the hypothesis in the search.
        flags: Warnings.

    Example:
        >>> so, far = Token("so", "so", 7, 0.1, 0.3), Token(" far", "▁far", 8, 0.3, 0.8)
        >>> [word.text for word in of_tokens((so, far), 1.0).words]
        ['so', 'far']
    """
    words = tuple(_words(tokens))
    segments = tuple(_segments(words, tokens))
    text = "".join(token.text for token in tokens)
    return Recognition(
        text, tuple(tokens), words, segments, duration, score, flags=tuple(flags)
    )


def _words(tokens: Sequence[Token]) -> Iterator[Word]:
    for text, first, last in word_borders([token.text for token in tokens]):
        parts = tokens[first:last]
        yield Word(
            text,
            parts[0].start,
            parts[-1].end,
            _all_right(_with_spaces(tokens, first, last)),
            first,
            last,
        )


def word_borders(pieces: Sequence[str]) -> list[tuple[str, int, int]]:
    """Divide pieces of text into words.

    White space separates words; in scripts without spaces each character is a word.
    Punctuation belongs to the word before it, opening brackets to the next one. Words
    that share a token are one word.

    Returns:
        Text, first token and index after the last token of each word.

    Example:
        >>> word_borders(["so", " fa", "r"])
        [('so', 0, 1), ('far', 1, 3)]
        >>> word_borders(["你", "好", "。"])
        [('你', 0, 1), ('好。', 1, 3)]
    """
    text = "".join(pieces)
    owners = [index for index, piece in enumerate(pieces) for _ in piece]
    words: list[list[int]] = []  # first character and the one after the last
    before = " "
    for place, character in enumerate(text):
        if not character.isspace():
            shared = bool(words) and owners[words[-1][1] - 1] == owners[place]
            if shared or not _divides(before, character):
                words[-1][1] = place + 1
            else:
                words.append([place, place + 1])
        before = character
    return [(text[a:b], owners[a], owners[b - 1] + 1) for a, b in words]


def _divides(before: str, character: str) -> bool:
    """Whether a word ends between two characters; the second is no white space."""
    if before.isspace():
        return True
    if _opens(before) or unicodedata.category(character)[0] == "M":
        return False
    wide = _is_unspaced(before) or _is_wide_mark(before)
    if unicodedata.category(character)[0] == "P":
        return wide and _opens(character)
    return wide or _is_unspaced(character)


def _opens(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi")


def _is_wide_mark(character: str) -> bool:
    return "\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uffef"


def _is_unspaced(character: str) -> bool:
    return _in_ranges(character, _UNSPACED)


def is_han(character: str) -> bool:
    """Whether it is a Chinese character; an empty text is none."""
    return bool(character) and _in_ranges(character, _HAN)


def _in_ranges(character: str, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= ord(character) <= last for first, last in ranges)


def _with_spaces(tokens: Sequence[Token], first: int, last: int) -> Sequence[Token]:
    """The tokens of a word, and the white spaces beside it."""
    before = first > 0 and tokens[first - 1].text.isspace()
    after = last < len(tokens) and tokens[last].text.isspace()
    return tokens[first - before : last + after]


def _all_right(tokens: Sequence[Token]) -> float | None:
    """Probability that all tokens are right, as if they were independent."""
    known = [token.confidence for token in tokens if token.confidence is not None]
    return math.prod(known) if known else None


def _segments(words: Sequence[Word], tokens: Sequence[Token]) -> Iterator[Segment]:
    for first, last in _passages(words):
        parts = words[first:last]
        inside = tokens[parts[0].first : parts[-1].last]
        known = [word.confidence for word in parts if word.confidence is not None]
        yield Segment(
            "".join(token.text for token in inside).strip(),
            parts[0].start,
            parts[-1].end,
            sum(known) / len(known) if known else None,
            first,
            last,
        )


def _passages(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """Cut at pauses; first words and indices after the last words."""
    gaps = [after.start - word.end for word, after in pairwise(words)]
    cuts = [place for place, gap in enumerate(gaps, 1) if gap >= PAUSE]
    for first, last in pairwise([0, *cuts, len(words)]):
        yield from _short_passages(words, gaps, first, last)


def _short_passages(
    words: Sequence[Word], gaps: Sequence[float], first: int, last: int
) -> Iterator[tuple[int, int]]:
    """Cut a passage that is too long at its longest gap, again and again."""
    if last - first > 1 and words[last - 1].end - words[first].start > LONGEST:
        middle = max(range(first + 1, last), key=lambda place: gaps[place - 1])
        yield from _short_passages(words, gaps, first, middle)
        yield from _short_passages(words, gaps, middle, last)
    elif first < last:
        yield first, last
