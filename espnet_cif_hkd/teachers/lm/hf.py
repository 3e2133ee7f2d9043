"""Causal and masked language models of Hugging Face, with the tokens of a unit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import Tokens
from espnet_cif_hkd.teachers.lm.batches import (
    Piece,
    batches,
    grouped,
    pieces,
    run_units,
)
from espnet_cif_hkd.teachers.lm.hf_model import (
    OPENINGS,
    load,
    logits_at,
    require_causal,
    run,
    special_token,
)
from espnet_cif_hkd.teachers.lm.hf_tokens import LMTokens, UnitTokens
from espnet_cif_hkd.teachers.lm.labels import (
    LMTeacher,
    flat_ids,
    lm_name,
    our_names,
    own_options,
)
from espnet_cif_hkd.teachers.text import files, plm
from espnet_cif_hkd.teachers.text.probe import max_length


class HuggingFaceLM(LMTeacher):
    """What causal and masked LMs have in common.

    Args:
        name: A folder, a hub name, or ``pkg://DISTRIBUTION/FOLDER``.
        token_list: Tokens of the unit. Each label needs a token of its own in the LM,
            see :mod:`espnet_cif_hkd.teachers.lm.hf_tokens`; the probabilities are
            those among these tokens.
        conf: ``lm_revision`` is required with a hub name; see also :class:`LMTeacher`.
        token_type: Token type of the unit; None infers it.
        case: ``auto``, ``keep`` or ``lower``: case of the units for the LM.
    """

    # Class of transformers; special tokens before a sentence, and for <unk>, the best
    # first.
    auto_class = ""
    openings: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        token_list: Sequence[str],
        conf: Mapping[str, Any],
        token_type: str | None = None,
        case: str = "auto",
    ):
        super().__init__(name, token_list, conf)
        self.token_type, self.case = token_type, case
        self._config = plm.TeacherConfig(name, 1, conf.get("lm_revision"))
        self._opened: Any = None
        self._tokens: tuple[Any, UnitTokens] | None = None

    @classmethod
    def from_conf(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> "HuggingFaceLM":
        """See :class:`LMTeacher`; ``lm_conf`` may have ``token_type`` and ``case``."""
        name = lm_name(conf, "a folder, a hub name or pkg://DISTRIBUTION/FOLDER")
        options = own_options(conf, cls.kind, "token_type", "case")
        return cls(name, token_list, conf, **options)

    def __getstate__(self) -> dict[str, Any]:
        """See :class:`LMTeacher`."""
        return {**super().__getstate__(), "_tokens": None}

    def check(self) -> None:
        """Open the tokenizer and compare the units. See :class:`LMTeacher`."""
        self.tokens()

    def tokens(self) -> tuple[Any, UnitTokens]:
        """Return the tokenizer and the LM's tokens of the units.

        Raises:
            UserError: The tokenizer cannot be opened, or a unit has no token.
        """
        if self._tokens is None:
            with our_names():
                plm.fixed_place(self._config)
                tokenizer = plm.open_tokenizer(self._config)
                self._tokens = tokenizer, self.unit_tokens(tokenizer)
        return self._tokens

    def unit_tokens(self, tokenizer: Any) -> UnitTokens:
        """Compare the tokens of the unit with those of the LM.

        Raises:
            UserError: They do not fit.
        """
        unknown = self._special(tokenizer, *self.unknowns)
        return LMTokens(
            *(self.name, tokenizer, self.token_list),
            *(self.token_type, self.case, unknown),
        )

    def open(self) -> Any:
        """Load the LM, unless it is loaded; return the Hugging Face model.

        Raises:
            UserError: A file is missing or damaged, or the LM is of another kind.
        """
        if self._opened is None:
            self.tokens()
            with our_names():
                self._opened = load(self._config, self.auto_class)
            self._probe(self._opened)
        return self._opened

    def examine(self, items: Sequence[Tokens]) -> list[str]:
        """See :class:`LMTeacher`."""
        return self.tokens()[1].examine(items)

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsTeacher`."""
        revision = self._config.revision
        return {**super().describe(), "revision": revision, "case": self.case}

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`AbsTeacher`."""
        return files.fingerprint(self._config.name, self._config.revision, cache)

    def _probe(self, model: Any) -> None:
        """Check that the loaded model is of the right kind."""

    def _special(self, tokenizer: Any, *kinds: str) -> int:
        return special_token(self.name, tokenizer, *kinds)

    def _columns(self, device: torch.device) -> Tensor:
        """Return the LM's token of each token of the unit, (V,)."""
        return on_device(self.tokens()[1].ids, device)


class CausalLM(HuggingFaceLM):
    """A causal LM: label i is predicted from the units before i.

    The input begins with the LM's bos token, or else its eos token. A sentence that is
    longer than the LM's input is read in windows, in which each unit has at least half
    of a window before it.
    """

    kind = "hf_causal"
    auto_class = "AutoModelForCausalLM"
    openings = OPENINGS
    unknowns = ("unk", "bos", "eos")

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`."""
        model = self.open().to(device)
        tokenizer, tokens = self.tokens()
        first = self._special(tokenizer, *self.openings)
        limit = max_length(tokenizer, model)
        columns, lead = self._columns(device), limit - max(1, limit // 2)
        for batch in batches(items, run_units(device), limit, lead):
            inputs = np.roll(tokens.ids[batch.ids], 1, axis=1)
            inputs[:, 0] = first
            output = run(model, inputs, batch.valid)  # (B, W, vocabulary)
            yield batch.rows, batch.take(output).index_select(1, columns)

    def _probe(self, model: Any) -> None:
        try:
            require_causal(self.name, model, self.tokens()[1].ids)
        except UserError as error:
            raise UserError(f"{error}; set lm_type: hf_masked") from error


class MaskedLM(HuggingFaceLM):
    """A masked LM: label i is predicted from all other units, with i masked.

    Each unit costs one forward pass of its sentence; the passes of all sentences are
    batched. A sentence that is longer than the LM's input is read in windows.
    """

    kind = "hf_masked"
    auto_class = "AutoModelForMaskedLM"
    openings = ("cls", "bos")
    unknowns = ("unk", "mask")
    sample_units = 1000
    run_rows = 1 << 12

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`."""
        model = self.open().to(device)
        tokenizer, tokens = self.tokens()
        first = self._special(tokenizer, *self.openings)
        last = self._special(tokenizer, "sep", "eos")
        mask = self._special(tokenizer, "mask")
        limit = max_length(tokenizer, model) - 2
        columns = self._columns(device)
        found = pieces(items, limit, (limit - max(1, limit // 2)) // 2)
        for some in _masked(found, run_units(device)):
            lengths = np.array([len(found[n][0]) for n, _ in some])
            at = np.array([position for _, position in some]) + 1
            places = np.arange(lengths.max() + 2)
            flat = flat_ids([found[n][0] for n, _ in some])
            ids = np.full((len(some), len(places)), tokenizer.pad_token_id or 0)
            inside = (places > 0) & (places <= lengths[:, None])
            ids[inside] = tokens.ids[flat]
            ids[:, 0] = first
            row = np.arange(len(some))
            ids[row, lengths + 1] = last
            ids[row, at] = mask
            valid = places < lengths[:, None] + 2
            output = logits_at(model, ids, valid, row, at)
            rows = np.array([found[n][1] + i - found[n][2] for n, i in some])
            yield rows, output.index_select(1, columns)


def _masked(found: Sequence[Piece], budget: int) -> Iterator[list[tuple[int, int]]]:
    """Yield groups of copies to mask: number of a piece and the masked position."""
    widths = [len(ids) + 2 for ids, *_ in found]
    copies = [
        (n, i) for n, (_, _, begin, end) in enumerate(found) for i in range(begin, end)
    ]
    for group in grouped([widths[n] for n, _ in copies], budget):
        yield [copies[n] for n in group]
