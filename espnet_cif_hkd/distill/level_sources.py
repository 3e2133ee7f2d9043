"""Units, alignments and soft labels of a level, opened when a batch needs them.

Decoding opens nothing of this. A file that is not on this machine is reported by the
first batch, and by the checks before a training.
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
# Utterances after which the share of those that are left out is checked, and after
# which it is not checked any more.
_ENOUGH, _TRUSTED = 200, 5000


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

    Raises:
        UserError: An option is wrong.
    """

    def __init__(
        self, level: Level, token_list: Sequence[str], token_type: str | None = None
    ):
        self.level, self._token_list = level, tuple(token_list)
        self._token_type = token_type
        self.absent = self._absent()
        self._seen = self._left_out = 0

    def _absent(self) -> UserError | None:
        """Return the error of a file of the unit that is not on this machine."""
        for name in _FILES:
            path = self.level.unit.get(name)
            if path is not None and not Path(str(path)).is_file():
                return UserError(
                    f"{self.level.place}.{name} {path}: this file does not exist"
                )
        return None

    @property
    def tokens(self) -> tuple[str, ...]:
        """Token list of the unit."""
        return self._token_list if self.level.is_output else self.unit.token_list

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

    def count_left_out(self, left_out: Sequence[bool], reason: str) -> None:
        """Count utterances of a training that are left out.

        Args:
            left_out: One value for each utterance of a batch.
            reason: What they lack, for the message.

        Raises:
            UserError: Their share is above ``max_missing``. Only at the beginning of a
                training, so that no finished work is lost.
        """
        if self._seen > _TRUSTED:
            return
        self._seen += len(left_out)
        self._left_out += sum(left_out)
        limit = self.level.options.max_missing
        if self._seen >= _ENOUGH and self._left_out > limit / 100 * self._seen:
            raise UserError(
                f"{self.level.place}: {self._left_out} of the first {self._seen} "
                f"utterances {reason}, more than max_missing {limit:g} %"
            )


@contextlib.contextmanager
def naming(level: Level) -> Iterator[None]:
    """Add the key of a level to errors that do not name it."""
    try:
        yield
    except UserError as error:
        if level.place in str(error):
            raise
        raise UserError(f"{level.place}: {error}") from error
