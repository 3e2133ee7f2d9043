"""Causal language models of Hugging Face whose tokens are longer than characters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.io.tables import first_few
from espnet_cif_hkd.teachers.base import Tokens
from espnet_cif_hkd.teachers.lm.batches import grouped, run_units
from espnet_cif_hkd.teachers.lm.characters import NextCharacter, TokenTexts, codes_of
from espnet_cif_hkd.teachers.lm.hf import CausalLM
from espnet_cif_hkd.teachers.lm.hf_model import logits_at, places_in_memory
from espnet_cif_hkd.teachers.lm.hf_tokens import token_texts
from espnet_cif_hkd.teachers.lm.labels import flat_ids, label_ids
from espnet_cif_hkd.teachers.text.probe import max_length
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller

# Share of the uniform distribution in all labels: no character is impossible.
_UNIFORM = 1e-4


class Characters:
    """The characters of a unit in the tokens of a language model.

    Args:
        name: The LM, for messages.
        tokenizer: A fast Hugging Face tokenizer.
        token_list: Tokens of the unit.
        token_type: Token type of the unit; None infers it.
        case: ``auto``, ``keep`` or ``lower``, see :class:`TokenSpeller`. With ``lower``
            tokens in capitals count for their small letters.

    Raises:
        UserError: The unit is no character, or the LM's tokens are words.

    Attributes:
        texts: The LM's tokens that begin with a character of the unit, or a space.
        ids: (T,) int64, their ids.
        codes: (V,) int64, the code of each token of the unit; 0 without text.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        token_list: Sequence[str],
        token_type: str | None,
        case: str,
    ):
        self._name, self._tokenizer, self._token_list = name, tokenizer, token_list
        self._speller = TokenSpeller(token_list, token_type, case=case)
        if self._speller.style != "char":
            raise UserError(
                f"lm {name}: lm_type hf_characters gives probabilities of characters, "
                f"but the unit is {self._speller.style}; use lm_type hf_causal with an "
                "LM of this unit, or a level with unit: char"
            )
        texts, plain = token_texts(tokenizer)
        if plain:
            raise UserError(
                f"lm {name}: its tokens have no spaces (WordPiece or words), so they "
                "do not spell a text; use lm_type hf_causal"
            )
        labels = label_ids(token_list).tolist()
        spelled = {n: self._speller.joined(n) for n in labels}
        owners: dict[str, str] = {}
        for n, text in spelled.items():
            if text in owners:
                raise UserError(
                    f"lm {name}: {owners[text]} and {token_list[n]} are the same text "
                    "for it; set lm_conf.case: keep"
                )
            if text:
                owners[text] = token_list[n]
        characters = codes_of(owners)
        if self._speller.lower:
            texts = {n: text.lower() for n, text in texts.items()}
        self.texts = TokenTexts(texts, characters)
        self.ids = self.texts.ids
        self.codes = np.zeros(len(token_list), np.int64)
        for n, text in spelled.items():
            self.codes[n] = characters.get(text, 0)
        self.space = characters[" "]
        encoded = tokenizer.encode("a", add_special_tokens=False)
        # Some tokenizers put a space before each text.
        self.leads = texts.get(encoded[0], "").startswith(" ")
        spaces = [n for n, text in texts.items() if text == " "]
        self._start = spaces[:1] if self.leads else []

    def examine(self, items: Sequence[Tokens]) -> list[str]:
        """Return a remark on characters that no token of the LM begins with or has."""
        seen = set(np.unique(self.texts.codes).tolist())
        lacking: dict[str, None] = {}
        for item in items:
            for n in item:
                if self.codes[n] and self.codes[n] not in seen:
                    lacking[self._token_list[n]] = None
        if not lacking:
            return []
        return [f"no token has {len(lacking)} characters ({first_few(list(lacking))})"]

    def contexts(self, item: Tokens, limit: int) -> list[tuple[int, ...]]:
        """Return the LM's tokens of the text before each unit, the last ``limit``."""
        spelling = self._speller(item)
        before = [spelling.text[:start] for start, _ in spelling.spans]
        if not before:
            return []
        found = self._tokenizer(before, add_special_tokens=False)["input_ids"]
        # Before the text there is nothing, or the space that the tokenizer adds.
        chosen = [ids if text else self._start for text, ids in zip(before, found)]
        return [tuple(ids[-limit:]) for ids in chosen]


class CharacterLM(CausalLM):
    """A causal LM of any tokens: label i is predicted from the characters before i.

    The probability of a character is the sum over the tokens that agree with the text
    so far, see :mod:`espnet_cif_hkd.teachers.lm.characters`. The LM runs once for each
    place where a token of it may end.
    """

    kind = "hf_characters"
    sample_units = 2000
    run_rows = 1 << 12

    def unit_tokens(self, tokenizer: Any) -> Characters:
        """See :class:`HuggingFaceLM`."""
        return Characters(
            self.name, tokenizer, self.token_list, self.token_type, self.case
        )

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`; logarithms of probabilities."""
        model = self.open().to(device)
        tokenizer, characters = self.tokens()
        assert isinstance(characters, Characters)
        first = self._special(tokenizer, *self.openings)
        limit = max_length(tokenizer, model) - 1
        columns = self._columns(device)
        begins = np.cumsum([0, *map(len, items)])
        for group in grouped([len(item) for item in items], run_units(device)):
            some = [items[n] for n in group]
            contexts = [characters.contexts(item, limit) for item in some]
            run = _Runs(model, first, columns)
            run.share(contexts)
            places, found = _masses(some, contexts, characters, run)
            rows = np.array([begins[group[b]] + at for b, at in places], np.int64)
            yield rows, self._log_shares(found, characters.codes, device)

    def _log_shares(
        self, masses: np.ndarray, codes: np.ndarray, device: torch.device
    ) -> Tensor:
        """Return logarithms of shares among the labels: (n, V) of masses (n, codes)."""
        found = np.where(codes > 0, masses[:, codes], 0.0)  # (n, V)
        total = found.sum(1, keepdims=True)
        shares = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
        shares = (1 - _UNIFORM) * shares + _UNIFORM / len(self.labels)
        return on_device(np.log(shares).astype(np.float32), device)


class _Runs:
    """Runs of the LM on texts: the probabilities of the tokens that may follow.

    Only tokens that begin with a character of the unit, or a space, may follow: where a
    sentence mark is probable but transcripts have none, a word still ends.

    Args:
        model: The LM.
        first: Token before a text.
        columns: (T,) ids of the tokens that may follow.
    """

    def __init__(self, model: Any, first: int, columns: Tensor):
        self._model, self._first, self._columns = model, first, columns
        self._found: dict[tuple[int, ...], np.ndarray] = {}

    def share(self, contexts: Sequence[Sequence[tuple[int, ...]]]) -> None:
        """Run once for all contexts of a text that begin its last one.

        Args:
            contexts: Of each text, those of its characters.
        """
        paths: dict[tuple[int, ...], list[int]] = {}
        for some in filter(None, contexts):
            path = some[-1]
            paths[path] = sorted({len(c) for c in some if c == path[: len(c)]})
        self._run(paths)

    def __call__(self, contexts: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Return (T,) float32 for each context; equal ones are computed once."""
        self._run({c: [len(c)] for c in contexts if c not in self._found})
        return [self._found[c] for c in contexts]

    def _run(self, texts: Mapping[tuple[int, ...], Sequence[int]]) -> None:
        """Find the probabilities after these numbers of tokens of each text."""
        device = self._columns.device
        own = list(texts)
        widths = [len(text) + 1 for text in own]
        # The logits of all places are in memory together.
        budget = min(run_units(device), places_in_memory(self._model))
        for group in grouped(widths, budget):
            lengths = np.array([widths[n] for n in group])
            ids = np.full((len(group), lengths.max()), self._first)
            for row, n in zip(ids, group, strict=True):
                row[1 : widths[n]] = own[n]
            valid = np.arange(ids.shape[1]) < lengths[:, None]
            at = [texts[own[n]] for n in group]
            rows = np.repeat(np.arange(len(group)), [len(some) for some in at])
            logits = logits_at(self._model, ids, valid, rows, flat_ids(at))
            kept = logits.index_select(1, self._columns).float().softmax(1)
            for row, place, shares in zip(rows, flat_ids(at), kept.cpu().numpy()):
                self._found[own[group[row]][:place]] = shares


def _masses(
    items: Sequence[Tokens],
    contexts: Sequence[Sequence[tuple[int, ...]]],
    characters: Characters,
    run: _Runs,
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Run through some sentences side by side.

    Returns:
        The sentence and the position of each row, and masses (n, codes).
    """
    states = [NextCharacter(characters.texts) for _ in items]
    if characters.leads:
        (start,) = run([()])
        for state in states:
            state.add(start)
            state.advance(characters.space)
    rows: list[tuple[int, int]] = []
    found = [np.zeros((0, characters.texts.n_codes))]
    for at in range(max(map(len, items), default=0)):
        active = [b for b, item in enumerate(items) if at < len(item)]
        asked = [b for b in active if states[b].ending]
        answers = run([contexts[b][at] for b in asked])
        for b, probabilities in zip(asked, answers, strict=True):
            states[b].add(probabilities)
        for b in active:
            rows.append((b, at))
            found.append(states[b].masses()[None])
            code = int(characters.codes[items[b][at]])
            if code:
                states[b].advance(code)
            else:
                states[b].restart()
    return rows, np.concatenate(found)
