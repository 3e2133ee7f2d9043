"""Utterances with recognised text from recordings without transcripts.

A recogniser's text of speech that nobody transcribed can train another recogniser
(pseudo-labels; among others Kahn et al., ICASSP 2020, arXiv 1909.09116). The search
that found the text may use more than the student has, such as a language model.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from espnet_cif_hkd.inference.recognition import Recognition, Token, Word
from espnet_cif_hkd.inference.units import plain, segments_of

# Seconds of audio beside the words of a passage: times of words are not exact.
MARGIN = 0.2
UNKNOWN = "<unk>"
# What recognisers write about sounds: [laughter], (music), *sighs*.
_REMARKS = re.compile(r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*")
_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ`´"), "'")


@dataclass(frozen=True)
class Piece:
    """An utterance.

    Attributes:
        start: Seconds in the recording.
        end: Seconds in the recording.
        complete: It is the complete recording.
        text: In one line; may be empty.
        confidence: Mean over its words; NaN: the recogniser computed none.
        unknown: ``<unk>`` is among its tokens.
    """

    start: float
    end: float
    complete: bool
    text: str
    confidence: float
    unknown: bool


def pieces_of(found: Recognition, longest: float) -> Iterator[Piece]:
    """Return the utterances of a recording.

    A recording of at most ``longest`` seconds is one utterance. A longer one is divided
    into its passages between pauses, with up to ``MARGIN`` seconds more at both ends,
    but no further than the middle of the pause.

    Args:
        found: Result of the recording.
        longest: Seconds.
    """
    if found.duration <= longest:
        yield _piece((0.0, found.duration), found.text, found.words, found.tokens, True)
        return
    passages = segments_of(found)
    middles = [(one.end + after.start) / 2 for one, after in pairwise(passages)]
    borders = [0.0, *middles, found.duration]
    for one, (least, most) in zip(passages, pairwise(borders)):
        span = max(least, one.start - MARGIN), min(most, one.end + MARGIN)
        words = found.words[one.first : one.last]
        tokens = found.tokens[words[0].first : words[-1].last]
        yield _piece(span, one.text, words, tokens, False)


def _piece(
    span: tuple[float, float],
    text: str,
    words: tuple[Word, ...],
    tokens: tuple[Token, ...],
    complete: bool,
) -> Piece:
    known = [word.confidence for word in words if word.confidence is not None]
    mean = sum(known) / len(known) if known else math.nan
    unknown = any(token.token == UNKNOWN for token in tokens)
    return Piece(*span, complete, plain(text), mean, unknown)


class Spelling:
    """Writes text of another recogniser with the characters of transcripts.

    Args:
        transcripts: Text without the names of utterances.

    Example:
        >>> spelling = Spelling(["IT'S LATE"])
        >>> spelling("It’s late, [sigh] Al-")
        "IT'S LATE AL"
        >>> spelling("See Île 7") is None
        True
    """

    def __init__(self, transcripts: Iterable[str]) -> None:
        self.known = frozenset(character for one in transcripts for character in one)
        lower = any(one.islower() for one in self.known)
        upper = any(one.isupper() for one in self.known)
        self._upper, self._lower = upper and not lower, lower and not upper

    def __call__(self, text: str) -> str | None:
        """Return the text without remarks, in the case of the transcripts.

        White space replaces punctuation and symbols that no transcript has.

        Returns:
            In one line; None: it has another character that no transcript has, such as
            a digit.
        """
        text = _REMARKS.sub(" ", unicodedata.normalize("NFC", text))
        if "'" in self.known:
            text = text.translate(_APOSTROPHES)
        if self._upper or self._lower:
            text = text.upper() if self._upper else text.lower()
        found = []
        for character in text:
            if character in self.known:
                found.append(character)
            elif unicodedata.category(character)[0] in "PSZC":
                found.append(" ")
            else:
                return None
        return plain("".join(found))
