"""A passage of a stream that gets its tokens one after the other."""

import math
from collections.abc import Callable, Sequence

from espnet_cif_hkd.inference.assemble import Span, assembled, word_borders
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.spans import SHORTEST
from espnet_cif_hkd.search.stepwise import StreamedToken

# What a tokenizer writes for an incomplete character.
_INCOMPLETE = "\ufffd"


class GrowingPassage:
    """Tokens with their pieces of text and times, none of which changes later.

    Args:
        symbols: The token list.
        decode: The text of symbols of the token list.
        earliest: Start and end of the token before the passage.

    Attributes:
        score: Log-probability of the passage; None: unknown.
        last: Start and end of the last token.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        decode: Callable[[Sequence[str]], str],
        earliest: Span = (0.0, 0.0),
    ) -> None:
        self._list, self._decode = symbols, decode
        self.score: float | None = None
        self.last = earliest
        self._duration = 0.0
        self._tokens: list[StreamedToken] = []
        self._symbols: list[str] = []
        self._pieces: list[str] = []
        self._spans: list[Span] = []
        self._text = ""  # all pieces
        self._decoded = ""  # what the tokenizer made of the tokens
        self._result: Recognition | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, token: StreamedToken, span: Span, duration: float) -> None:
        """Add a token.

        Args:
            token: The token.
            span: Its start and end in seconds.
            duration: Length of the audio so far in seconds, positive.
        """
        self._tokens.append(token)
        decoded = self._with(token.id)
        piece = self._piece(decoded)
        if piece:
            self._decoded = decoded
        self._symbols.append(self._list[token.id])
        self._pieces.append(piece)
        self._text += piece
        shortest = min(SHORTEST, duration / 2)
        start = min(max(span[0], self.last[0], 0.0), duration - shortest)
        end = min(max(span[1], self.last[1], start + shortest), duration)
        self.last = start, end
        self._spans.append(self.last)
        self._duration = duration
        self._result = None

    def begins_word(self, token: int) -> bool:
        """Whether a token, if added, would begin a word."""
        piece = self._piece(self._with(token))
        borders = word_borders([self._text[-1:] or " ", piece])
        return bool(borders) and borders[-1][1] == 1

    def result(self) -> Recognition:
        """Return the passage so far."""
        if not self._tokens:
            return Recognition()
        if self._result is None:
            self._result = assembled(
                [token.id for token in self._tokens],
                self._symbols,
                self._pieces,
                self._spans,
                self._duration,
                [math.exp(min(token.logp, 0.0)) for token in self._tokens],
                self.score,
            )
        return self._result

    def _with(self, token: int) -> str:
        """What the tokenizer makes of the tokens and a further one."""
        text = self._decode([*self._symbols, self._list[token]])
        return text.rstrip(_INCOMPLETE)

    def _piece(self, decoded: str) -> str:
        """What a text has beyond the one before."""
        if decoded.startswith(self._decoded):
            return decoded[len(self._decoded) :]
        # A tokenizer that cleans spaces changes them before the new token, too. What is
        # new comes after as many other characters.
        known = sum(not one.isspace() for one in self._decoded)
        piece = _after(decoded, known)
        return piece.lstrip() if self._text[-1:].isspace() else piece


def _after(text: str, count: int) -> str:
    """What follows ``count`` characters that are no white space."""
    for place, one in enumerate(text):
        if count == 0:
            return text[place:]
        count -= not one.isspace()
    return ""
