"""The result of recognition: text, tokens, words and segments with seconds.

This module needs neither torch nor ESPnet, so that exported models return it as well.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Token:
    """A token of the model's token list.

    Attributes:
        text: The piece that the token adds to the text, spaces included: the joined
            pieces are the text.
        token: The symbol in the token list.
        id: Its index in the token list.
        start: Seconds from the beginning of the audio.
        end: Seconds, later than ``start``.
        confidence: Probability that the token is right, 0 to 1; None: not computed.
    """

    text: str
    token: str
    id: int
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Word:
    """A word: in scripts without spaces, one character.

    Attributes:
        text: Without spaces around it.
        start: Seconds at which its first token starts.
        end: Seconds at which its last token ends.
        confidence: Probability that the word is right: the product of those of its
            tokens and of the white spaces beside it; None: not computed.
        first: Index of its first token.
        last: Index after its last token.
    """

    text: str
    start: float
    end: float
    confidence: float | None
    first: int
    last: int


@dataclass(frozen=True)
class Segment:
    """A passage between pauses.

    Attributes:
        text: Without spaces around it.
        start: Seconds at which its first word starts.
        end: Seconds at which its last word ends.
        confidence: Mean over its words; None: not computed.
        first: Index of its first word.
        last: Index after its last word.
    """

    text: str
    start: float
    end: float
    confidence: float | None
    first: int
    last: int


@dataclass(frozen=True)
class Flag:
    """A warning about a passage.

    Attributes:
        kind: ``missing``: a token may be missing; ``extra``: one may be too many.
        start: Seconds.
        end: Seconds.
        value: Probability that a token is missing, if calibrated; otherwise the sum of
            alpha minus the number of tokens.
    """

    kind: str
    start: float
    end: float
    value: float


@dataclass(frozen=True)
class Recognition:
    """What a recogniser found in some audio.

    Attributes:
        text: The complete text.
        tokens: In order of time.
        words: In order of time.
        segments: In order of time.
        duration: Length of the audio in seconds.
        score: Log-probability of the hypothesis in the search, without that of
            ``rescore_lm``; None: unknown.
        nbest: The hypotheses of the search, best first, if several were asked for;
            theirs is empty.
        flags: Warnings.

    Example:
        >>> so = Token("so", "so", 7, 0.1, 0.3, 0.9)
        >>> far = Token(" far", "▁far", 8, 0.3, 0.8)
        >>> words = Word("so", 0.1, 0.3, 0.9, 0, 1), Word("far", 0.3, 0.8, None, 1, 2)
        >>> one = Recognition("so far", (so, far), words, duration=1.0)
        >>> one.validate() is one
        True
        >>> Recognition.from_dict(one.to_dict()) == one
        True
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    words: tuple[Word, ...] = ()
    segments: tuple[Segment, ...] = ()
    duration: float = 0.0
    score: float | None = None
    nbest: tuple["Recognition", ...] = field(default=())
    flags: tuple[Flag, ...] = ()

    def validate(self) -> "Recognition":
        """Return this result if it is consistent.

        The text is the joined text of the tokens; 0 ≤ start < end ≤ duration; neither
        starts nor ends decrease; words and segments cover the tokens and words that
        they name; confidences are between 0 and 1.

        Raises:
            ValueError: Otherwise; the message names the first fault.
        """
        joined = "".join(token.text for token in self.tokens)
        if joined != self.text:
            raise ValueError(f"the tokens' text is {joined!r}, not {self.text!r}")
        _check_times("token", self.tokens, self.duration)
        _check_times("word", self.words, self.duration)
        _check_times("segment", self.segments, self.duration)
        _check_parts("word", self.words, self.tokens)
        _check_parts("segment", self.segments, self.words)
        for one in self.nbest:
            one.validate()
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return dictionaries, lists, strings and numbers only, as for JSON."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Recognition":
        """Return the result that :meth:`to_dict` described.

        Raises:
            TypeError: If a name is unknown or missing.
        """
        parts: dict[str, Any] = dict(fields)
        kinds = {"tokens": Token, "words": Word, "segments": Segment, "flags": Flag}
        for name, kind in kinds.items():
            parts[name] = tuple(kind(**one) for one in parts.get(name, ()))
        parts["nbest"] = tuple(map(cls.from_dict, parts.get("nbest", ())))
        return cls(**parts)


def _check_times(
    name: str, parts: Iterable[Token | Word | Segment], duration: float
) -> None:
    start = end = 0.0
    for index, one in enumerate(parts):
        if not 0 <= one.start < one.end <= duration:
            raise ValueError(
                f"{name} {index} ({one.text!r}) is from {one.start} to {one.end} s of "
                f"{duration} s"
            )
        if one.start < start or one.end < end:
            raise ValueError(f"{name} {index} ({one.text!r}) is before the one before")
        start, end = one.start, one.end
        if one.confidence is not None and not 0 <= one.confidence <= 1:
            raise ValueError(
                f"{name} {index} ({one.text!r}) has confidence {one.confidence}"
            )


def _check_parts(
    name: str, groups: Iterable[Word | Segment], parts: tuple[Token | Word, ...]
) -> None:
    after = 0
    for index, one in enumerate(groups):
        if not after <= one.first < one.last <= len(parts):
            raise ValueError(
                f"{name} {index} ({one.text!r}) has the parts {one.first} to {one.last}"
            )
        after = one.last
        times = parts[one.first].start, parts[one.last - 1].end
        if not all(map(math.isclose, times, (one.start, one.end))):
            raise ValueError(
                f"{name} {index} ({one.text!r}) is from {one.start} to {one.end} s, "
                f"its parts from {times[0]} to {times[1]} s"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value
