"""Pronunciations of words, from a Kaldi lexicon."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_lines

UNKNOWN = "<unk>"

# <UNK>, [noise], !SIL: entries of Kaldi lexicons that are not words of a transcript.
_SYMBOL = re.compile(r"<\S+>|\[\S+\]|!\S+")
_NO_WORD = ("", *"<[!;")
# "read(2)" is a further pronunciation of "read" in CMU's dictionaries.
_VARIANT = re.compile(r"(?<=.)\(\d+\)$")


class Lexicon:
    """The first pronunciation of each word of a lexicon.

    A line is ``WORD PHONE PHONE …``, and perhaps `` # comment``. Symbols such as
    ``<UNK>``, ``[noise]`` and ``!SIL``, and comment lines, ``;;;``, are skipped. The
    first line of a word is used; lines below, also in the form ``WORD(2)``, are further
    pronunciations and are skipped.

    The entry with the same letters in the same case comes first. Otherwise case is
    ignored, because transcripts are often in capitals and dictionaries in lower case.

    Args:
        path: the file.

    Raises:
        UserError: the file is missing, is not UTF-8, has no entry, or an entry has no
            phones.

    Attributes:
        path: the file.
        entries: words with their phones, in the order of the file.
        phones: all phones, in the order of their first entry.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"lexicon {path} is missing: make it by "
                "python3 -m espnet_cif_hkd.cli.make_lexicon"
            )
        self.entries: dict[str, tuple[str, ...]] = {}
        for number, line in enumerate(read_lines(self.path), 1):
            word, *phones = line.partition(" #")[0].split() or [""]
            # Dictionaries have 100,000 lines: few need the regular expressions.
            if word[:1] in _NO_WORD and _is_skipped(word):
                continue
            if not phones:
                raise UserError(
                    f"{path}, line {number}: {word} has no phones: write "
                    "'WORD PHONE PHONE …'"
                )
            if word[-1] == ")":
                word = _VARIANT.sub("", word)
            self.entries.setdefault(word, tuple(phones))
        if not self.entries:
            raise UserError(f"{path} has no entries: write 'WORD PHONE PHONE …'")
        self._folded: dict[str, tuple[str, ...]] = {}
        for word, known in self.entries.items():
            self._folded.setdefault(word.lower(), known)
        self._longest = max(map(len, self.entries))
        self.phones = list(dict.fromkeys(chain.from_iterable(self.entries.values())))

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, word: str) -> tuple[str, ...] | None:
        """Return the phones of ``word``; None if it has no pronunciation."""
        return self.entries.get(word) or self._folded.get(word.lower())

    def words(self, text: str) -> Iterator[str]:
        """Yield the words of a text.

        Words are separated by white space. If such a word is not in the lexicon and has
        letters of a script without case, such as Chinese characters, it is divided by
        :func:`longest_matches`.
        """
        for word in text.split():
            if self.find(word) or not any(map(is_caseless, word)):
                yield word
            else:
                yield from longest_matches(word, self._has, self._longest)

    def _has(self, word: str) -> bool:
        return self.find(word) is not None

    def missing(self, texts: Iterable[str]) -> Counter[str]:
        """Count the words of texts that have no pronunciation, without ``<unk>``."""
        found: Counter[str] = Counter()
        for text in texts:
            found.update(
                word
                for word in self.words(text)
                if UNKNOWN not in word and not self.find(word)
            )
        return found

    def digest(self) -> str:
        """Return a hash of the pronunciations in use."""
        data = "\n".join(f"{word} {' '.join(p)}" for word, p in self.entries.items())
        return hashlib.blake2b(data.encode(), digest_size=16).hexdigest()


def _is_skipped(word: str) -> bool:
    return word[:3] in ("", ";;;") or _SYMBOL.fullmatch(word) is not None


def is_caseless(char: str) -> bool:
    """Whether ``char`` is a letter of a script without case, such as Chinese."""
    return unicodedata.category(char) == "Lo"


def longest_matches(
    word: str, is_entry: Callable[[str], bool], longest: int
) -> Iterator[str]:
    """Divide a word: at each position take the longest entry, or else one character.

    Entries begin with a letter of a script without case. Other characters stay
    together; ``<unk>`` stays alone.

    Args:
        word: text without white space.
        is_entry: whether a part is an entry.
        longest: length of the longest entry.
    """
    at = 0
    while at < len(word):
        end = at + 1
        if word.startswith(UNKNOWN, at):
            end = at + len(UNKNOWN)
        elif is_caseless(word[at]):
            ends = range(min(len(word), at + longest), at + 1, -1)
            end = next((e for e in ends if is_entry(word[at:e])), end)
        else:
            while (
                end < len(word)
                and not is_caseless(word[end])
                and not word.startswith(UNKNOWN, end)
            ):
                end += 1
        yield word[at:end]
        at = end


def listed(missing: Counter[str], limit: int = 20) -> str:
    """Return words with their counts in one line, the most frequent ones first."""
    ordered = sorted(missing.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{word} ({count})" for word, count in ordered[:limit])
    more = len(ordered) - limit
    return f"{text} and {more} more" if more > 0 else text
