"""Units of labels: characters, sub-words, words, or phones of a lexicon.

A unit turns a transcript into the ids of its labels. The ids follow a token list in
ESPnet's order: ``<blank>``, ``<unk>``, the labels, ``<sos/eos>``.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import first_few, read_lines, single_spaced
from espnet_cif_hkd.teachers.base import Tokens, token_list_hash
from espnet_cif_hkd.teachers.lm.lexicon import UNKNOWN, Lexicon, listed
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller, infer_token_type

UNITS = ("token", "char", "bpe", "word", "lexicon", "aligned")
UNKNOWN_WORDS = ("error", "unk")
BLANK, EOS = "<blank>", "<sos/eos>"
# A larger share of unknown labels means another token list or another case.
_MOST_UNKNOWN = 0.1


class AbsUnit(ABC):
    """A unit of labels.

    Args:
        name: name of the unit.
        token_list: the labels, in ESPnet's order.
        speller: spells the token ids of the recogniser; None: :meth:`sequence` is not
            needed.

    Attributes:
        name: see above.
        token_list: see above.
    """

    def __init__(
        self, name: str, token_list: Sequence[str], speller: TokenSpeller | None
    ) -> None:
        self.name = name
        self.token_list = tuple(token_list)
        self._ids = {token: i for i, token in enumerate(self.token_list)}
        self._unknown = self._ids.get(UNKNOWN, 1)
        self._speller = speller

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the label ids of a transcript; ``<unk>`` for an unknown label.

        Raises:
            UserError: a word has no pronunciation, and ``unknown_words`` is ``error``.
        """

    def sequence(self, ids: Tokens) -> list[int]:
        """Return the label ids for token ids of the recogniser, without ``<eos>``.

        Raises:
            UserError: see :meth:`encode`.
        """
        if self._speller is None:
            raise ValueError(f"unit {self.name} was built without the token list")
        return self.encode(single_spaced(self._speller(ids).text))

    def describe(self) -> dict[str, Any]:
        """Return what determines the ids, as JSON values that contain no path."""
        return {"unit": self.name, "unit_tokens": token_list_hash(self.token_list)}

    def check(self, texts: Iterable[str]) -> Counter[str]:
        """Check that transcripts consist of known labels, before hours are spent.

        Returns:
            Unknown labels with their counts; they are also logged.

        Raises:
            UserError: too many labels are unknown, or words without a pronunciation
                that ``unknown_words`` does not allow; all in one message.
        """
        total = unknown = 0
        for text in texts:
            ids = self.encode(text)
            total += len(ids)
            unknown += ids.count(self._unknown) - text.count(UNKNOWN)
        if unknown > _MOST_UNKNOWN * total:
            raise UserError(
                f"unit {self.name}: {unknown} of {total} labels of the text are not in "
                "unit_token_list: use the token list that belongs to this text, or "
                "text in the same case"
            )
        return Counter({UNKNOWN: unknown} if unknown > 0 else {})


class TokenizerUnit(AbsUnit):
    """Characters, sub-words or words, by ESPnet's tokenizers.

    Text is converted to the case of the token list if all letters of the list are
    capitals, or none is.

    Args:
        name: ``char``, ``bpe`` or ``word``.
        token_list: the labels.
        bpemodel: sentencepiece model, for ``bpe``.
        speller: see :class:`AbsUnit`.

    Raises:
        UserError: the model is missing.
    """

    def __init__(
        self,
        name: str,
        token_list: Sequence[str],
        bpemodel: str | None = None,
        speller: TokenSpeller | None = None,
    ) -> None:
        super().__init__(name, token_list, speller)
        from espnet2.text.build_tokenizer import build_tokenizer

        if name == "bpe" and not (bpemodel and Path(bpemodel).is_file()):
            reason = f"{bpemodel} is missing" if bpemodel else "is not set"
            raise UserError(
                f"unit_bpemodel {reason}: unit 'bpe' needs the sentencepiece model"
            )
        self._bpemodel = bpemodel if name == "bpe" else None
        self._tokenizer = build_tokenizer(name, self._bpemodel)
        self._case = _case_of(self.token_list)
        self._kind = name

    def encode(self, text: str) -> list[int]:
        """See :class:`AbsUnit`."""
        ids: list[int] = []
        # A word with <unk> inside is not in the list, and is one <unk>.
        parts = [text] if self._kind == "word" else text.split(UNKNOWN)
        for n, part in enumerate(parts):
            if n:
                ids.append(self._unknown)
            if self._case:
                part = part.upper() if self._case == "upper" else part.lower()
            tokens = self._tokenizer.text2tokens(part)
            ids += [self._ids.get(token, self._unknown) for token in tokens]
        return ids

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsUnit`."""
        described = super().describe()
        if self._bpemodel:
            content = Path(self._bpemodel).read_bytes()
            described["unit_bpemodel"] = hashlib.blake2b(
                content, digest_size=16
            ).hexdigest()
        return described


class TokenUnit(TokenizerUnit):
    """The recogniser's own tokens: :meth:`sequence` returns the ids unchanged."""

    def __init__(
        self, kind: str, token_list: Sequence[str], bpemodel: str | None = None
    ) -> None:
        self._can_encode = kind in ("char", "word") or (kind == "bpe" and bpemodel)
        if self._can_encode:
            super().__init__(kind, token_list, bpemodel)
            self._case = None  # the recogniser's text is never converted
        else:
            AbsUnit.__init__(self, kind, token_list, None)
            self._bpemodel = None
        self.name = "token"

    def encode(self, text: str) -> list[int]:
        """See :class:`AbsUnit`."""
        if not self._can_encode:
            raise UserError(
                "unit 'token' needs unit_bpemodel, the recogniser's sentencepiece "
                "model, to divide text"
            )
        return super().encode(text)

    def sequence(self, ids: Tokens) -> list[int]:
        """Return the same ids."""
        return list(ids)

    def check(self, texts: Iterable[str]) -> Counter[str]:
        """See :class:`AbsUnit`; without ``unit_bpemodel`` nothing is checked."""
        return super().check(texts) if self._can_encode else Counter()

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsUnit`."""
        return AbsUnit.describe(self)


class LexiconUnit(AbsUnit):
    """Phones, or initials and finals with tones, by a lexicon.

    A word has its first pronunciation; see
    :class:`~espnet_cif_hkd.teachers.lm.lexicon.Lexicon` for words of languages without
    spaces and for upper and lower case. A word that contains the recogniser's
    ``<unk>`` is one ``<unk>``.

    Args:
        token_list: the labels.
        lexicon: path of the Kaldi lexicon.
        unknown_words: what a word without a pronunciation becomes: ``error``, or
            ``unk``, one ``<unk>``.
        speller: see :class:`AbsUnit`.

    Raises:
        UserError: the lexicon is wrong, or a phone is not in the token list.
    """

    def __init__(
        self,
        token_list: Sequence[str],
        lexicon: str,
        unknown_words: str = "error",
        speller: TokenSpeller | None = None,
    ) -> None:
        super().__init__("lexicon", token_list, speller)
        if unknown_words not in UNKNOWN_WORDS:
            raise UserError(
                f"unknown_words: {unknown_words!r} is unknown; use one of "
                f"{', '.join(UNKNOWN_WORDS)}"
            )
        self.lexicon = Lexicon(lexicon)
        self._refuses = unknown_words == "error"
        absent = [p for p in self.lexicon.phones if p not in self._ids]
        if absent:
            raise UserError(
                f"{lexicon}: {first_few(absent)} not in unit_token_list: use the token "
                "list that make_lexicon wrote with this lexicon"
            )
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """See :class:`AbsUnit`."""
        ids: list[int] = []
        for word in self.lexicon.words(text):
            known = self._known.get(word)
            ids += self._look_up(word) if known is None else known
        return ids

    def _look_up(self, word: str) -> list[int]:
        phones = self.lexicon.find(word)
        if phones is None:
            if self._refuses and UNKNOWN not in word:
                raise UserError(self._refusal(Counter([word])))
            return [self._unknown]
        ids = self._known[word] = [self._ids[phone] for phone in phones]
        return ids

    def _refusal(self, missing: Counter[str]) -> str:
        return (
            f"{len(missing)} words have no pronunciation in {self.lexicon.path}: "
            f"{listed(missing)}: add them by hand or by make_lexicon --unknown_words "
            "guess, or set unknown_words: unk"
        )

    def check(self, texts: Iterable[str]) -> Counter[str]:
        """See :class:`AbsUnit`."""
        missing = self.lexicon.missing(texts)
        if missing and self._refuses:
            raise UserError(self._refusal(missing))
        if missing:
            logging.warning(
                "%d words have no pronunciation in %s and become <unk>: %s",
                *(len(missing), self.lexicon.path, listed(missing)),
            )
        return missing

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsUnit`."""
        return {**super().describe(), "lexicon": self.lexicon.digest()}


class AlignedUnit(AbsUnit):
    """Labels that only an alignment gives, such as states; text has no ids."""

    def encode(self, text: str) -> list[int]:
        """Refuse text.

        Raises:
            UserError: always.
        """
        raise UserError(
            "unit 'aligned' has labels from an alignment only: set 'map: alignment', "
            "or use another unit"
        )

    def sequence(self, ids: Tokens) -> list[int]:
        """See :meth:`encode`."""
        return self.encode("")

    def check(self, texts: Iterable[str]) -> Counter[str]:
        """Return nothing: text is not used."""
        return Counter()


def build_unit(
    conf: Mapping[str, Any],
    token_list: Sequence[str],
    token_type: str | None = None,
) -> AbsUnit:
    """Build the unit of a level or of a language model.

    Args:
        conf: ``unit``: ``token`` (the recogniser's own tokens), ``char``, ``bpe``,
            ``word``, ``lexicon`` or ``aligned`` (labels of an alignment, such as
            states). ``unit_token_list``: a file with one label per line, or a list;
            needed unless the unit is ``token``. ``unit_bpemodel``: sentencepiece
            model. ``lexicon``: Kaldi lexicon. ``unknown_words``: ``error`` or ``unk``.
        token_list: tokens of the recogniser; empty if
            :meth:`AbsUnit.sequence` is not needed.
        token_type: token type of the recogniser; None infers it.

    Raises:
        UserError: an option is missing or wrong, or a file is.
    """
    name = _name(conf)
    bpemodel = str(conf["unit_bpemodel"]) if conf.get("unit_bpemodel") else None
    if name == "token":
        kind = token_type or infer_token_type(token_list)
        return TokenUnit(kind, token_list, bpemodel)
    labels = unit_tokens(conf, token_list)
    if name == "aligned":
        return AlignedUnit(name, labels, None)
    speller = None
    if token_list:
        speller = TokenSpeller(token_list, token_type, UNKNOWN, case="keep")
    if name != "lexicon":
        return TokenizerUnit(name, labels, bpemodel, speller)
    if not conf.get("lexicon"):
        raise UserError("unit 'lexicon' needs 'lexicon', a Kaldi lexicon")
    unknown_words = str(conf.get("unknown_words") or "error")
    return LexiconUnit(labels, str(conf["lexicon"]), unknown_words, speller)


def _name(conf: Mapping[str, Any]) -> str:
    name = str(conf.get("unit") or "token")
    if name not in UNITS:
        raise UserError(f"unit: {name!r} is unknown; use one of {', '.join(UNITS)}")
    return name


def unit_tokens(conf: Mapping[str, Any], token_list: Sequence[str]) -> tuple[str, ...]:
    """Return the token list of a unit, without its other files.

    Args:
        conf: as for :func:`build_unit`.
        token_list: tokens of the recogniser.

    Raises:
        UserError: it is not set, is missing, or is no token list of ESPnet.
    """
    unit, given = _name(conf), conf.get("unit_token_list")
    if unit == "token":
        return tuple(token_list)
    if not given:
        raise UserError(f"unit {unit!r} needs unit_token_list, its tokens.txt")
    if isinstance(given, str | Path):
        place = str(given)
        if not Path(place).is_file():
            raise UserError(f"unit_token_list {place} is missing")
        # A label may be white space, so only what follows the first character is cut.
        labels = [line[:1] + line[1:].rstrip() for line in read_lines(place)]
    else:
        place, labels = "unit_token_list", [str(label) for label in given]
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise UserError(
            f"{place}: {first_few(twice)} occurs twice: keep one line of it"
        )
    if labels[:1] != [BLANK] or labels[-1:] != [EOS] or UNKNOWN not in labels:
        raise UserError(
            f"{place}: not in ESPnet's order: the first label must be {BLANK}, the "
            f"last {EOS}, and {UNKNOWN} must be between them"
        )
    return tuple(labels)


def _case_of(token_list: Sequence[str]) -> str | None:
    """Return ``upper`` or ``lower`` if all letters of the labels are; else None."""
    labels = [t for t in token_list if not (t.startswith("<") and t.endswith(">"))]
    letters = [c for label in labels for c in label]
    has_upper, has_lower = (
        any(map(str.isupper, letters)),
        any(map(str.islower, letters)),
    )
    if has_upper == has_lower:
        return None
    return "upper" if has_upper else "lower"
