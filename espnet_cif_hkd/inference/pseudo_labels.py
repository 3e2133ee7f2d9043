"""Utterances with recognised text from recordings without transcripts.

A recogniser's text of speech that nobody transcribed can train another recogniser
(pseudo-labels; among others Kahn et al., ICASSP 2020, arXiv 1909.09116). The search
that found the text may use more than the student has, such as a language model.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from espnet_cif_hkd.inference.recognition import Recognition, Token, Word
from espnet_cif_hkd.inference.units import plain, segments_of

# Seconds of audio beside the words of a passage: times of words are not exact.
MARGIN = 0.2
UNKNOWN = "<unk>"


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
