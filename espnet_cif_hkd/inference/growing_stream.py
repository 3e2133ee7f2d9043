"""What streams in torch and of exported models share: results that only grow.

This module needs neither torch nor ESPnet.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.joining import Joiner
from espnet_cif_hkd.inference.partial import GrowingPassage
from espnet_cif_hkd.inference.passage_stream import Fired, PassageLimits, Place
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.search.stepwise import StepwiseSearch, StreamedToken

# A search may choose the blank as a token; it is no text, as in the offline search.
_BLANK = 0


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is searched.

    Attributes:
        beam_size: Hypotheses; 1: greedy search.
        pause: Seconds in which nobody speaks, after which a passage may end.
        tokens: Fewest tokens of a passage that ends in a pause.
        limit: Most tokens of a passage: the decoder remembers no more.
        keep: Whether every result has the complete text. Otherwise passages that have
            ended are in one result only, and the memory of a stream is bounded.
    """

    beam_size: int = 1
    pause: float = 0.5
    tokens: int = 100
    limit: int = 200
    keep: bool = True


def stream_options(given: Mapping[str, Any]) -> StreamOptions:
    """Return the options with these values.

    Raises:
        UserError: A name is unknown.
    """
    known = [one.name for one in dataclasses.fields(StreamOptions)]
    for name in given:
        if name not in known:
            raise UserError(
                f"a stream has no option {name!r}; it has {', '.join(known)}"
            )
    return StreamOptions(**given)


@dataclass(frozen=True)
class StreamText:
    """How the tokens of a stream become results.

    Attributes:
        symbols: The token list.
        decode: The text of symbols of the token list.
        offset: Centre of encoder frame 0 in seconds.
        stride: Seconds from one encoder frame to the next.
        timing: Place of the middle of a weight in its token.
    """

    symbols: Sequence[str]
    decode: Callable[[Sequence[str]], str]
    offset: float
    stride: float
    timing: Timing


class GrowingStream(ABC):
    """Searches the fired vectors of a stream and collects the tokens.

    Tokens that a result has are in all later ones, unchanged and with the same times.

    Args:
        text: Of the model.
        options: Of the search.

    Raises:
        UserError: An option is wrong.
    """

    def __init__(self, text: StreamText, options: StreamOptions | None = None) -> None:
        self.options = options or StreamOptions()
        _check_options(self.options)
        self._text = text
        self._places: deque[Place] = deque()
        self._joiner = Joiner()
        self._ended = False
        self._passage = self._new_passage()
        self._search: StepwiseSearch[Any]

    @abstractmethod
    def _new_search(self) -> StepwiseSearch[Any]:
        """Return the search of a passage."""

    @abstractmethod
    def _waiting(self, fired: Fired) -> list[Any]:
        """Return vectors as the search takes them."""

    @property
    def _limits(self) -> PassageLimits:
        return PassageLimits(
            max(1, round(self.options.pause / self._text.stride)),
            self.options.tokens,
            self.options.limit,
        )

    def _begin(self, last: bool) -> None:
        """Begin to work on a piece of the audio."""
        if self._ended:
            raise UserError("the stream has ended: open another one")
        self._ended = last
        if not self.options.keep:
            self._joiner.clear()

    def _result(self, duration: float) -> Recognition:
        """What is recognised so far."""
        if self._ended:
            self._close()
        return self._joiner.result(duration, self._passage.result())

    def _extend(self, passages: list[Fired], duration: float) -> None:
        """Search the vectors of passages."""
        for fired in passages:
            self._places += fired.places
            self._add(self._search.add(self._waiting(fired)), duration)
            if fired.ends:
                self._add(self._search.finish(), duration)
                self._passage.score = self._search.score
                self._close(fired.is_inside)
                self._search = self._new_search()

    def _add(self, tokens: list[StreamedToken], duration: float) -> None:
        for token in tokens:
            span = self._seconds(self._places.popleft())
            if token.id != _BLANK:
                self._passage.add(token, span, duration)

    def _seconds(self, place: Place) -> tuple[float, float]:
        """Start and end of a token; they do not depend on later tokens."""
        begin, middle, end = (
            self._text.offset + (one - 0.5) * self._text.stride
            for one in (place.begin, place.middle, place.end)
        )
        timing = self._text.timing
        if middle - begin > 2 * timing.trail:
            begin = middle - timing.lead - timing.trail
        if end - middle > 2 * timing.trail:
            end = middle + timing.trail
        return begin + timing.stream_start, end + timing.stream_end

    def _close(self, is_inside: bool = False) -> None:
        """End the passage."""
        self._joiner.add(self._passage.result(), is_inside)
        self._places.clear()
        self._passage = self._new_passage()

    def _new_passage(self) -> GrowingPassage:
        earliest = self._passage.last if hasattr(self, "_passage") else (0.0, 0.0)
        return GrowingPassage(self._text.symbols, self._text.decode, earliest)


def _check_options(options: StreamOptions) -> None:
    for name in ("beam_size", "tokens", "limit"):
        value = getattr(options, name)
        if type(value) is not int or value < 1:
            raise UserError(f"stream: {name} {value!r} must be an integer >= 1")
    if options.limit < options.tokens:
        raise UserError(
            f"stream: limit {options.limit} must not be less than tokens "
            f"{options.tokens}"
        )
    if not options.pause > 0:
        raise UserError(f"stream: pause {options.pause!r} must be more than 0 seconds")
