"""Units, alignments and soft labels of a level, opened when a batch needs them.

Decoding needs nothing of this: only the number of tokens of a unit is looked up. A file
that is missing or wrong is reported by the first batch, and by the checks before a
training.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.distill.level_options import Level
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import Targets, Tokens

if TYPE_CHECKING:
    from espnet_cif_hkd.teachers.lm.labels import LMTeacher
    from espnet_cif_hkd.teachers.lm.spans import Alignments
    from espnet_cif_hkd.teachers.lm.units import AbsUnit

_FILES = ("unit_token_list", "unit_bpemodel", "lexicon")


@dataclass
class BatchUnits:
    """The units of a batch at one level.

    Attributes:
        sequences: Unit ids of each utterance; empty for an utterance without units and
            for one that is left out.
        spans: Begin and end of each unit in seconds, (N_b, 2) for each utterance; None
            without alignments.
        left_out: Whether each utterance is left out.
    """

    sequences: list[list[int]]
    spans: list[np.ndarray] | None
    left_out: list[bool]

    @property
    def sizes(self) -> list[int]:
        """Number of units of each utterance."""
        return [len(ids) for ids in self.sequences]

    def first(self) -> np.ndarray:
        """The row of the first unit of each utterance in :meth:`flat`, (B,) int64."""
        return np.cumsum([0, *self.sizes], dtype=np.int64)[:-1]

    def flat(self) -> np.ndarray:
        """All unit ids in order, (R,) int64."""
        joined = [np.asarray(ids, dtype=np.int64) for ids in self.sequences]
        return np.concatenate([np.zeros(0, dtype=np.int64), *joined])


@dataclass
class SoftLabels:
    """Soft labels of all units of a batch, one row for each.

    Attributes:
        ids: (R, K) int64, R is at least 1: a batch without units has a row of zeros.
        probabilities: (R, K) float32 with the sum 1.
    """

    ids: Tensor
    probabilities: Tensor

    def take(self, rows: Tensor | slice) -> "SoftLabels":
        """Return the labels of some rows."""
        return SoftLabels(self.ids[rows], self.probabilities[rows])


class LevelSource:
    """What a level learns: units of the transcripts, and their soft labels.

    Args:
        level: The level.
        token_list: Tokens of the recogniser.
        token_type: Token type of the recogniser; None infers it.

    Attributes:
        tokens: Token list of the unit.
        absent: Error of a file that a training needs; None if there is none.
    """

    def __init__(
        self, level: Level, token_list: Sequence[str], token_type: str | None = None
    ):
        self.level, self._token_list = level, tuple(token_list)
        self._token_type = token_type
        self.tokens, self.absent = self._read_tokens()

    def _read_tokens(self) -> tuple[tuple[str, ...], UserError | None]:
        """Return the token list of the unit, and the error of a file.

        It is an error that a file is not on this machine, or that the token list cannot
        be read.
        """
        from espnet_cif_hkd.teachers.lm.units import unit_tokens

        if self.level.is_output:
            return self._token_list, None
        for name in _FILES:
            path = self.level.unit.get(name)
            if path is not None and not Path(str(path)).is_file():
                return (), UserError(
                    f"{self.level.place}.{name} {path}: this file does not exist"
                )
        try:
            with naming(self.level):
                return unit_tokens(self.level.unit, self._token_list), None
        except UserError as error:
            return (), error

    def open(self) -> None:
        """Open what turns texts into units, such as a lexicon.

        Raises:
            UserError: A file or an option of the unit is wrong.
        """
        if self.absent is not None:
            raise self.absent
        if not self.level.is_output:
            _ = self.unit

    @cached_property
    def unit(self) -> "AbsUnit":
        """The rule that turns tokens of the recogniser into units."""
        from espnet_cif_hkd.teachers.lm.units import build_unit

        with naming(self.level):
            return build_unit(self.level.unit, self._token_list, self._token_type)

    @cached_property
    def alignments(self) -> "Alignments":
        """The stored forced alignments."""
        from espnet_cif_hkd.teachers.lm.spans import Alignments

        with naming(self.level):
            return Alignments(Path(str(self.level.options.alignment)), self.tokens)

    def teacher(self) -> "LMTeacher":
        """Return the language model, or the reader of its store; opens nothing.

        Raises:
            UserError: An option is wrong, or it belongs to another token list.
        """
        from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

        with naming(self.level):
            return build_lm_teacher(self.level.lm, self.tokens)

    @cached_property
    def _teacher(self) -> "LMTeacher":
        return self.teacher()

    def units(self, texts: Sequence[Tokens], names: Sequence[str] | None) -> BatchUnits:
        """Return the units of a batch.

        Args:
            texts: Token ids of the recogniser for each utterance, without ``<eos>``.
            names: Names of the utterances.

        Raises:
            UserError: Names are needed and missing, or a file is wrong.
        """
        if self.level.is_output:
            sequences = [list(ids) for ids in texts]
            return BatchUnits(sequences, None, [False] * len(texts))
        if self.level.options.map != "alignment":
            sequences = [list(self.unit.sequence(ids)) for ids in texts]
            return BatchUnits(sequences, None, [False] * len(texts))
        if names is None:
            raise UserError(
                f"{self.level.place}: map: alignment needs the names of the utterances,"
                " which ESPnet's trainer gives as utt_id"
            )
        found = [self.alignments.get(name) for name in names]
        none = np.zeros((0, 2), dtype=np.float32)
        return BatchUnits(
            [[] if one is None else one[0].tolist() for one in found],
            [none if one is None else one[1] for one in found],
            [one is None for one in found],
        )

    def labels(self, units: BatchUnits, device: torch.device) -> SoftLabels:
        """Return the soft labels of a batch.

        Raises:
            UserError: The store lacks a sequence, or has another number of labels.
        """
        items = [ids for ids in units.sequences if ids]
        if not items:
            none = torch.zeros(1, 1, device=device)
            return SoftLabels(none.long(), none)
        with naming(self.level):
            found: Targets = self._teacher.targets(items, device)
        for ids, size in zip(items, found.sizes, strict=True):
            if len(ids) != size:
                raise UserError(
                    f"{self.level.place}: the language model has {size} labels for a "
                    f"sequence of {len(ids)} units; its store was made for another "
                    "unit: fill another folder"
                )
        return SoftLabels(found.tensors["ids"], found.tensors["probabilities"])

    def sequences(self, texts: Callable[[], Iterable[Tokens]]) -> Iterator[Tokens]:
        """Yield the unit ids of all utterances that the level may read.

        Args:
            texts: Token ids of the recogniser for all sentences. With ``map:
                alignment`` the sequences are those of the alignment file instead.

        Raises:
            UserError: A file is wrong, or a word has no pronunciation.
        """
        if not self.level.is_output and self.level.options.map == "alignment":
            found: Iterable[Tokens] = self.alignments.sequences()
        elif self.level.is_output:
            found = texts()
        else:
            found = (self.unit.sequence(ids) for ids in texts())
        yield from (ids for ids in found if len(ids))


@contextlib.contextmanager
def naming(level: Level) -> Iterator[None]:
    """Add the key of a level to errors that do not name it."""
    try:
        yield
    except UserError as error:
        if level.place in str(error):
            raise
        raise UserError(f"{level.place}: {error}") from error
