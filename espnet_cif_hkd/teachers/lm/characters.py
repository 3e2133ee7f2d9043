"""The next character of a text, from the probabilities of longer tokens.

A language model predicts tokens, a recogniser of characters needs characters. The text
before a character has several coverings: the last token of it may end there, or go on.
Each covering has a probability, and the sum over coverings gives that of the next
character. Tokens before the last one are always those that the tokenizer chooses.
(T. Vieira et al., "From language models over tokens to language models over
characters", arXiv 2412.03719, sum over all tokens.)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

END, OTHER, FIRST = 0, 1, 2  # codes: end of a token, no label, the first character
# Share of the coverings below which the LM does not run for the end of a token.
_SMALL = 0.01


class TokenTexts:
    """Texts of an LM's tokens, sorted, so that a prefix is a range.

    Args:
        texts: Text of each token by its id. Tokens that begin with another character
            are left out.
        codes: Code of each character, from ``FIRST`` on.

    Attributes:
        ids: (T,) int64, ids of the tokens, sorted by their text.
        codes: (T, D) int32, codes of the characters of each text; ``END`` after the
            last one, and after the first one that is ``OTHER``.
        n_codes: Number of codes.
    """

    def __init__(self, texts: Mapping[int, str], codes: Mapping[str, int]):
        self.n_codes = FIRST + len(codes)
        kept = [(n, text) for n, text in texts.items() if text and text[0] in codes]
        spelled = [_spelled(text, codes) for _, text in kept]
        width = max(map(len, spelled), default=0) + 1
        table = np.full((len(kept), width), END, np.int32)
        for row, found in zip(table, spelled, strict=True):
            row[: len(found)] = found
        order = np.lexsort(table.T[::-1])
        self.ids = np.array([n for n, _ in kept], np.int64)[order]
        self.codes = np.asfortranarray(table[order])  # columns are read


def _spelled(text: str, codes: Mapping[str, int]) -> list[int]:
    found = []
    for character in text:
        found.append(codes.get(character, OTHER))
        if found[-1] == OTHER:
            break
    return found


@dataclass(frozen=True)
class _Covering:
    """The tokens that begin at one place of the text and agree with it so far.

    Attributes:
        low: First row of these tokens; they are a range of ``TokenTexts``.
        depth: Number of their characters that the text has already.
        masses: (n,) float64, the probability of each, with that of its place.
    """

    low: int
    depth: int
    masses: np.ndarray


class NextCharacter:
    """Probabilities of the next character of one text.

    Args:
        texts: The tokens.

    Attributes:
        ending: Share of the coverings whose last token ends here. Where it is not 0,
            the LM must run on the text so far: see :meth:`add`.
    """

    def __init__(self, texts: TokenTexts):
        self._texts = texts
        self._coverings: list[_Covering] = []
        self.ending = 1.0

    def restart(self) -> None:
        """Let a token end here, whatever was before."""
        self._coverings, self.ending = [], 1.0

    def add(self, probabilities: np.ndarray) -> None:
        """Add the tokens that may begin here.

        Args:
            probabilities: (T,) of ``TokenTexts.ids``, after the text so far.
        """
        masses = self.ending * probabilities.astype(np.float64)
        self._coverings.append(_Covering(0, 0, masses))
        self.ending = 0.0

    def masses(self) -> np.ndarray:
        """Return how probable each code is to follow: (n_codes,), not normalised."""
        total = np.zeros(self._texts.n_codes)
        for covering in self._coverings:
            column = self._column(covering)
            total += np.bincount(column, covering.masses, self._texts.n_codes)
        return total

    def advance(self, code: int) -> None:
        """Append a character to the text."""
        found = []
        ending = 0.0
        for covering in self._coverings:
            low, high = np.searchsorted(self._column(covering), (code, code + 1))
            masses = covering.masses[low:high]
            narrow = _Covering(covering.low + low, covering.depth + 1, masses)
            n_ends = int(np.searchsorted(self._column(narrow), END + 1))
            ending += float(masses[:n_ends].sum())
            if n_ends < len(masses):
                first = narrow.low + n_ends
                found.append(_Covering(first, narrow.depth, masses[n_ends:]))
        going_on = float(sum(covering.masses.sum() for covering in found))
        if ending < _SMALL * (ending + going_on):
            ending = 0.0
        total = ending + going_on
        if not total > 0:  # no token has this character here
            self.restart()
            return
        self.ending = ending / total
        self._coverings = [
            _Covering(some.low, some.depth, some.masses / total) for some in found
        ]

    def _column(self, covering: _Covering) -> np.ndarray:
        """Return the code that follows in each token of a covering, sorted: (n,)."""
        high = covering.low + len(covering.masses)
        return self._texts.codes[covering.low : high, covering.depth]


def codes_of(characters: Iterable[str]) -> dict[str, int]:
    """Return a code for each character and for the space."""
    return {c: FIRST + n for n, c in enumerate(dict.fromkeys([*characters, " "]))}
