"""Join the results of passages to the result of the complete audio.

This module needs neither torch nor ESPnet.
"""

from collections.abc import Iterable
from dataclasses import replace

from espnet_cif_hkd.inference.assemble import word_borders
from espnet_cif_hkd.inference.recognition import (
    Flag,
    Recognition,
    Segment,
    Token,
    Word,
)


class Joiner:
    """Collects results whose times are those of the complete audio.

    Between two passages there is a space, except in scripts without spaces: there
    neighbouring characters are different words anyway.

    Example:
        >>> joiner = Joiner()
        >>> for text, start in (("so", 0.0), ("far", 1.0)):
        ...     token = Token(text, text, 5, start, start + 0.5)
        ...     word = Word(text, start, start + 0.5, None, 0, 1)
        ...     joiner.add(Recognition(text, (token,), (word,), duration=2.0))
        >>> result = joiner.result(2.0)
        >>> result.text, [word.first for word in result.words]
        ('so far', [0, 1])
    """

    def __init__(self) -> None:
        self._before = " "  # the last character
        self._last = 0.0, 0.0  # start and end of the last token
        self.clear()

    def clear(self) -> None:
        """Forget the passages so far; the next one follows them all the same."""
        self._text: list[str] = []
        self._tokens: list[Token] = []
        self._words: list[Word] = []
        self._segments: list[Segment] = []
        self._flags: list[Flag] = []
        self._scores: list[float | None] = []

    def add(self, passage: Recognition, is_inside: bool = False) -> None:
        """Add the next passage; not if it is empty.

        Args:
            passage: Its result.
            is_inside: Whether it may have ended inside of a word.
        """
        tokens, words, segments = self._moved(passage)
        self._text += [token.text for token in tokens]
        self._tokens += tokens
        self._words += words
        self._segments += segments
        self._flags += passage.flags
        if tokens:
            self._scores.append(passage.score)
            self._last = tokens[-1].start, tokens[-1].end
            self._before = " " if is_inside else (passage.text[-1:] or self._before)

    def result(self, duration: float, then: Recognition | None = None) -> Recognition:
        """Return the joined result.

        Args:
            duration: Length of the audio in seconds.
            then: A further passage, which is not added.
        """
        tokens, words, segments = self._moved(then or Recognition())
        scores = [*self._scores, *([then.score] if then and then.tokens else [])]
        known = [score for score in scores if score is not None]
        return Recognition(
            "".join([*self._text, *(token.text for token in tokens)]),
            (*self._tokens, *tokens),
            (*self._words, *words),
            (*self._segments, *segments),
            duration,
            sum(known) if known and len(known) == len(scores) else None,
            flags=(*self._flags, *(then.flags if then else ())),
        )

    def _moved(
        self, passage: Recognition
    ) -> tuple[list[Token], list[Word], list[Segment]]:
        """Tokens, words and segments of a passage as they are after those so far."""
        n_tokens, n_words = len(self._tokens), len(self._words)
        tokens = [self._later(token) for token in passage.tokens]
        words = [
            replace(
                word,
                start=tokens[word.first].start,
                end=tokens[word.last - 1].end,
                first=word.first + n_tokens,
                last=word.last + n_tokens,
            )
            for word in passage.words
        ]
        segments = [
            replace(
                one,
                start=words[one.first].start,
                end=words[one.last - 1].end,
                first=one.first + n_words,
                last=one.last + n_words,
            )
            for one in passage.segments
        ]
        place = next((n for n, token in enumerate(tokens) if token.text), None)
        if place is not None and self._is_apart(tokens[place].text[0]):
            tokens[place] = replace(tokens[place], text=" " + tokens[place].text)
        return tokens, words, segments

    def _later(self, token: Token) -> Token:
        """A token that is not before the last one; passages without a pause overlap."""
        start, end = self._last
        if token.start >= start and token.end >= end:
            return token
        return replace(token, start=max(token.start, start), end=max(token.end, end))

    def _is_apart(self, character: str) -> bool:
        """Whether a space is missing before a character."""
        if self._before.isspace() or character.isspace():
            return False
        return len(word_borders([self._before, character])) == 1


def joined(passages: Iterable[Recognition], duration: float) -> Recognition:
    """Join the results of passages; see :class:`Joiner`."""
    joiner = Joiner()
    for passage in passages:
        joiner.add(passage)
    return joiner.result(duration)
