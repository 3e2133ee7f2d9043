"""Labels without knowledge: controls for every claim about a language model.

They have the K, the temperature, the store and the loss of an LM's labels. A gain with
them is no gain from a language model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import Targets, Tokens
from espnet_cif_hkd.teachers.content import content_hash
from espnet_cif_hkd.teachers.lm.labels import (
    LMTeacher,
    flat_ids,
    label_ids,
    lm_name,
    own_options,
)

_CHUNK = 4096  # rows


class UniformLM(LMTeacher):
    """K labels of each unit, drawn at random, with the probability 1/K each.

    The expectation of a row is the uniform distribution over all labels. K is that of
    the LM in comparison, so that store, loss and number of target labels are the same.
    ``top_k`` >= the number of labels gives exactly the uniform distribution. The draw
    depends on the units of the sentence, the position and the seed only.

    Args:
        token_list: Tokens of the unit.
        conf: ``top_k``, see :class:`LMTeacher`.
        seed: Seed of the draw.
    """

    kind = "uniform"
    is_control = True

    def __init__(
        self, token_list: Sequence[str], conf: Mapping[str, Any], seed: int = 1
    ):
        super().__init__(self.kind, token_list, conf)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise UserError(f"lm_conf.seed is {seed!r}; set it to an integer")
        self.seed = seed

    @classmethod
    def from_conf(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> "UniformLM":
        """See :class:`LMTeacher`; ``lm_conf`` may have ``seed``."""
        return cls(token_list, conf, **own_options(conf, cls.kind, "seed"))

    def open(self) -> None:
        """Do nothing: there is nothing to load."""

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`; zeros."""
        for rows in _chunks(items):
            yield rows, torch.zeros(len(rows), len(self.token_list), device=device)

    def _run(
        self, items: Sequence[Tokens], device: torch.device, units: Tensor | None
    ) -> Targets:
        width, n_labels = self.payload.width, len(self.labels)
        drawn = [self._draw(item) for item in items]
        places = np.concatenate([np.zeros((0, width), np.int64), *drawn])
        ids = on_device(self.labels[places], device)
        if units is not None:
            units.fill_(-float(np.log(n_labels)))
        probabilities = torch.full(ids.shape, 1 / width, device=device)
        sizes = [len(item) for item in items]
        return Targets(sizes, {"ids": ids, "probabilities": probabilities})

    def _draw(self, item: Tokens) -> np.ndarray:
        """Draw K different labels for each unit: (U, K), indices of ``labels``."""
        number = int.from_bytes(self.key(item), "big")
        generator = np.random.default_rng([number, self.seed & (2**64 - 1)])
        noise = generator.random((len(item), len(self.labels)), np.float32)
        return np.argpartition(noise, self.payload.width - 1)[:, : self.payload.width]

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsTeacher`."""
        return {**super().describe(), "seed": self.seed}

    def fingerprint(self, cache: Path | None = None) -> str:
        """Return a constant: the options determine the labels."""
        return self.kind


class UnigramLM(LMTeacher):
    """The K most frequent labels of a text, for each unit the same.

    The probability of a label is its count plus one, divided by their sum.

    Args:
        name: A file of counts, one ``token count`` in each line, as
            :func:`count_units` writes it.
        token_list: Tokens of the unit.
        conf: See :class:`LMTeacher`.
    """

    kind = "unigram"
    is_control = True

    def __init__(self, name: str, token_list: Sequence[str], conf: Mapping[str, Any]):
        super().__init__(name, token_list, conf)
        self._opened: Tensor | None = None

    @classmethod
    def from_conf(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> "UnigramLM":
        """See :class:`LMTeacher`."""
        own_options(conf, cls.kind)
        return cls(lm_name(conf, "a file of counts"), token_list, conf)

    @property
    def is_missing(self) -> bool:
        """Whether there is no file of counts."""
        return not Path(self.name).exists()

    def check(self) -> None:
        """Read the counts. See :class:`LMTeacher`."""
        self.open()

    def open(self) -> Tensor:
        """Return the logarithm of the counts plus one: (V,) float32.

        Raises:
            UserError: The file is missing or damaged, or has other tokens.
        """
        if self._opened is None:
            counts = self._counts()
            values = [counts.get(token, 0) + 1 for token in self.token_list]
            self._opened = torch.tensor(values, dtype=torch.float64).log().float()
        return self._opened

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`."""
        row = self.open().to(device)
        for rows in _chunks(items):
            yield rows, row.repeat(len(rows), 1)

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`AbsTeacher`."""
        path = Path(self.name)
        return content_hash([path], cache) if path.is_file() else None

    def _counts(self) -> dict[str, int]:
        path, counts = Path(self.name), dict[str, int]()
        known = {self.token_list[n] for n in self.labels}
        try:
            lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(
                f"lm {path}: the counts cannot be read ({e}); set label_store, whose "
                "dump counts the units of its texts, or make the counts with "
                "cli.prepare_levels"
            ) from e
        for number, line in enumerate(lines, 1):
            token, _, count = line.rpartition(" ")
            if token not in known or not count.isdecimal():
                raise UserError(
                    f"lm {path}, line {number}: {line!r} is not a label of the unit "
                    "and its count; delete the file and dump the labels again"
                )
            counts[token] = int(count)
        return counts


def count_units(
    path: Path, token_list: Sequence[str], items: Iterable[Tokens]
) -> dict[str, int]:
    """Count the labels of sentences and write the counts for :class:`UnigramLM`.

    Args:
        path: The file.
        token_list: Tokens of the unit.
        items: Unit ids of all sentences.

    Returns:
        The counts of the labels that occur.

    Raises:
        UserError: The file cannot be written.
    """
    counts = unit_counts(token_list, items)
    labels = [n for n in label_ids(token_list).tolist() if counts[n]]
    found = {token_list[n]: int(counts[n]) for n in labels}
    try:
        write_text(path, "".join(f"{token} {n}\n" for token, n in found.items()))
    except OSError as e:
        raise UserError(f"lm {path}: the counts cannot be written ({e})") from e
    return found


def unit_counts(token_list: Sequence[str], items: Iterable[Tokens]) -> np.ndarray:
    """Return how often each token occurs in sentences: (V,) int64."""
    counts = np.zeros(len(token_list), np.int64)
    iterator = iter(items)
    while some := list(islice(iterator, _CHUNK)):
        counts += np.bincount(flat_ids(some), minlength=len(counts))
    return counts


def _chunks(items: Sequence[Tokens]) -> Iterator[np.ndarray]:
    """Yield the numbers of all rows."""
    total = sum(map(len, items))
    for begin in range(0, total, _CHUNK):
        yield np.arange(begin, min(begin + _CHUNK, total))
