"""The token of a Hugging Face LM for each token of a unit, where there is exactly one.

A token of the unit and a token of the LM belong together if they spell the same text,
with the space before a word: ``▁the``, ``Ġthe``, WordPiece ``the`` and the word ``the``
do, and so do ``ing``, ``##ing`` and ``ing`` inside of a word. A Chinese character of a
character list is the WordPiece token at the beginning of a word, because BERT splits
Chinese text into characters. In a vocabulary without marks, a token without such a
partner is looked up by its name, as phones need it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import first_few
from espnet_cif_hkd.teachers.base import Tokens
from espnet_cif_hkd.teachers.lm.labels import UNKNOWN, label_ids
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller

_BROKEN = "\ufffd"  # the text of bytes that are no UTF-8
# Largest share of units that the tokenizer may split in another way.
_OTHER_LIMIT = 0.05


class UnitTokens(Protocol):
    """What a language model has for the tokens of a unit.

    Attributes:
        ids: Ids of the LM's tokens that are needed.
    """

    ids: np.ndarray

    def examine(self, items: Sequence[Tokens]) -> list[str]:
        """Return remarks on sentences.

        Raises:
            UserError: The LM cannot read them.
        """


class LMTokens:
    """A one-to-one map from the labels of a unit to tokens of a language model.

    Args:
        name: The LM, for messages.
        tokenizer: A fast Hugging Face tokenizer.
        token_list: Tokens of the unit.
        token_type: Token type of the unit; None infers it.
        case: ``auto``, ``keep`` or ``lower``, see :class:`TokenSpeller`.
        unknown: Token of the LM for ``<unk>``.

    Raises:
        UserError: A label has no token of its own.

    Attributes:
        ids: (V,) int64, the LM's token of each token of the unit; that of ``<unk>`` for
            all that are no labels.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        token_list: Sequence[str],
        token_type: str | None,
        case: str,
        unknown: int,
    ):
        self._name, self._tokenizer = name, tokenizer
        self._token_list = token_list
        self._speller = TokenSpeller(token_list, token_type, case=case)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        texts, plain = token_texts(tokenizer)
        spelled: dict[str, int] = {}
        for n, text in texts.items():
            spelled.setdefault(text, n)
        by_character = self._speller.style == "char" and plain
        self.ids = np.full(len(token_list), unknown, np.int64)
        missing, shared = [], []
        owners: dict[int, str] = {}
        for n in label_ids(token_list).tolist():
            label, text = token_list[n], self._speller.joined(n)
            found = spelled.get(f" {text}") if by_character else None
            if found is None:
                found = spelled.get(text)
            if found is None and plain:
                found = vocabulary.get(label)
            if found is None:
                missing.append(label)
            elif found in owners:
                shared.append(f"{owners[found]} and {label}")
            else:
                owners[found] = label
                self.ids[n] = found
        if missing:
            raise UserError(
                f"lm {name}: its vocabulary has no token for {len(missing)} of "
                f"{len(label_ids(token_list))} units ({first_few(missing)}); choose an "
                "LM of this unit, or train one with ESPnet's lm_train"
            )
        if shared:
            raise UserError(
                f"lm {name}: units share a token of it ({first_few(shared)}); set "
                "lm_conf.case: keep if they differ by case, or choose another LM"
            )

    def examine(self, items: Sequence[Tokens]) -> list[str]:
        """Compare the LM's own tokens of sentences with those of the map.

        Returns:
            A remark on units that the tokenizer splits in another way.

        Raises:
            UserError: More than 5 % of the units are not one token in their context.
        """
        other: dict[str, int] = {}
        n_units = 0
        unknown = self._token_list.index(UNKNOWN) if UNKNOWN in self._token_list else -1
        for item in items:
            n_units += len(item)
            if unknown in item:
                continue
            for n in self._split_otherwise(item):
                label = self._token_list[item[n]]
                other[label] = other.get(label, 0) + 1
        count = sum(other.values())
        if not count:
            return []
        most = first_few(sorted(other, key=lambda label: -other[label]))
        remark = (
            f"its tokenizer does not make one token of {count / n_units:.1%} of the "
            f"units in their context ({most})"
        )
        if count > _OTHER_LIMIT * n_units:
            raise UserError(
                f"lm {self._name}: {remark}, so it was trained on other sequences; "
                "choose an LM of this unit, or train one with ESPnet's lm_train"
            )
        return [remark]

    def _split_otherwise(self, item: Tokens) -> list[int]:
        """Return the positions of units that are not one token of the LM's tokens."""
        wanted = self.ids[np.asarray(item, np.int64)].tolist()
        spelling = self._speller(item)
        # A word at the beginning may have a token with a space.
        for text in (spelling.text, f" {spelling.text}"):
            encoded = self._tokenizer(
                text,
                add_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,
            )
            if encoded["input_ids"] == wanted:
                return []
        shift = 1  # of the last text
        tokens = {
            (start + _left(text[start:end]), i)
            for (start, end), i in zip(encoded["offset_mapping"], encoded["input_ids"])
        }
        return [
            n
            for n, (start, end) in enumerate(spelling.spans)
            if start < end
            and (start + shift + _left(spelling.text[start:end]), wanted[n])
            not in tokens
        ]


def _left(text: str) -> int:
    """Return the number of spaces at the beginning, if anything follows them."""
    return len(text) - len(text.lstrip()) if text.strip() else 0


def token_texts(tokenizer: Any) -> tuple[dict[int, str], bool]:
    """Return the texts of tokens, with the space before a word.

    Returns:
        The text of each token by its id, without tokens that have none, or whose bytes
        are no UTF-8; and whether words have no mark, as in WordPiece.
    """
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    kind = type(tokenizer.backend_tokenizer.model).__name__
    plain = kind in ("WordPiece", "WordLevel")
    if plain:
        # The beginning of a word has no mark; the rest of it has ## in WordPiece.
        texts = [n[2:] if n.startswith("##") and len(n) > 2 else f" {n}" for n in names]
    else:
        speller = TokenSpeller(names, "hugging_face", case="keep")
        texts = [speller.joined(n) for n in range(len(names))]
    pairs = zip(names, texts, strict=True)
    found = {vocabulary[name]: t for name, t in pairs if t and _BROKEN not in t}
    return found, plain
