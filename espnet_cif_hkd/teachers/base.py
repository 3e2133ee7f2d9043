"""Base classes of teachers: frozen models that turn items into targets.

An item is the input of a teacher: the token ids of a transcript for text teachers, the
samples of a recording for speech teachers. A teacher is not part of the student: it is
not in the state dict, the optimiser or DDP, and decoding does not load it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.payload import Payload

KEY_BYTES = 16

Item = TypeVar("Item")
Tokens = Sequence[int]


@dataclass(frozen=True)
class Targets:
    """Targets of a batch of items, concatenated.

    Attributes:
        sizes: number of rows of each item.
        tensors: (R, …) by name, with the names of the payload's arrays; R is the sum of
            ``sizes``.
    """

    sizes: list[int]
    tensors: dict[str, Tensor]


class AbsTeacher(ABC, Generic[Item]):
    """A teacher of any kind.

    Attributes:
        payload: kind and width of the targets.
        run_rows: about the number of targets in one call when a store is filled, for a
            slow teacher; None: many.
    """

    payload: Payload
    run_rows: int | None = None

    @abstractmethod
    def open(self) -> Any:
        """Load everything that :meth:`targets` needs, unless it is loaded.

        Raises:
            UserError: a file is missing, or the teacher cannot be used.
        """

    @abstractmethod
    def key(self, item: Item) -> bytes:
        """Return the key of ``item`` in a store: a hash of its content, 16 bytes."""

    @abstractmethod
    def targets(self, items: Sequence[Item], device: torch.device) -> Targets:
        """Return the targets of a batch, on ``device``; open the teacher if needed."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the options that determine the targets, by their names in messages.

        JSON values only. Opens nothing. ``name`` and ``revision`` are not compared;
        :meth:`fingerprint` is compared instead. For an open teacher ``layer`` counts
        from the embedding and ``num_layers`` is set; before, ``layer`` may be negative.
        """

    @abstractmethod
    def fingerprint(self, cache: Path | None = None) -> str | None:
        """Return a hash of the teacher's content, independent of its path.

        Args:
            cache: a file that keeps hashes of large files between calls.

        Returns:
            The hash; None if the files are not on this machine.
        """

    def n_rows(self, item: Item) -> int:
        """Return the approximate number of target rows of ``item``."""
        return len(item) + 1  # type: ignore[arg-type]

    def spell(self, item: Item) -> str:
        """Return the name of ``item`` for messages."""
        return repr(item)[:80]


class TextTeacher(AbsTeacher[Tokens]):
    """A teacher with one vector for each token of a transcript and for ``<eos>``.

    Attributes:
        token_list: tokens of the ASR model.
        token_type: token type of the ASR model; None infers it.
    """

    token_list: list[str]
    token_type: str | None = None

    @classmethod
    @abstractmethod
    def from_conf(
        cls,
        conf: Mapping[str, Any],
        token_list: Sequence[str],
        token_type: str | None = None,
    ) -> "TextTeacher":
        """Build the teacher of a ``criterion_conf``; opens nothing.

        Raises:
            UserError: an option is missing or wrong.
        """

    @abstractmethod
    def features(self, sequences: Sequence[Tokens], device: torch.device) -> Tensor:
        """Return the teacher vectors of a batch.

        Args:
            sequences: token ids of B sentences, without ``<eos>``.
            device: device of the result.

        Returns:
            (N, C) float32: the sentences one after the other, each with ``<eos>``. N is
            the sum of the lengths + B.
        """

    def sample(self) -> Iterator[Tensor]:
        """Yield vectors for statistics of each dimension, ``(R, C)`` each.

        Each call yields the same vectors. A teacher without this method cannot be
        standardised.
        """
        raise NotImplementedError

    @classmethod
    def has_sample(cls) -> bool:
        """Whether the class has :meth:`sample`."""
        return cls.sample is not TextTeacher.sample

    def check(self) -> list[str]:
        """Check everything that does not need weights; ``token_list`` may be empty.

        Returns:
            Tokens of the list that the teacher does not know.

        Raises:
            UserError: an option or a file of the teacher is wrong.
        """
        return []

    def spell(self, item: Tokens) -> str:
        """Return the text of the sentence."""
        from espnet_cif_hkd.teachers.text.spelling import TokenSpeller

        speller = TokenSpeller(self.token_list, self.token_type, "<unk>")
        return f"the sentence {speller(item).text!r}"

    def key(self, item: Tokens) -> bytes:
        """Return :func:`sequence_key` of the token ids."""
        return sequence_key(item)

    def targets(self, items: Sequence[Tokens], device: torch.device) -> Targets:
        """See :class:`AbsTeacher`; ``vectors`` (N, C) float32."""
        sizes = [len(item) + 1 for item in items]
        return Targets(sizes, {"vectors": self.features(items, device)})


def own_conf(conf: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the options that a teacher has under a key, such as ``teacher_conf``.

    Raises:
        UserError: The value is no mapping.
    """
    found = conf.get(name) or {}
    if not isinstance(found, Mapping):
        raise UserError(f"{name} is {found!r}; it must hold 'option: value'")
    return dict(found)


def sequence_key(ids: Tokens) -> bytes:
    """Return the 16-byte BLAKE2b hash of token ids as little-endian int32."""
    data = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


def token_list_hash(token_list: Sequence[str]) -> str:
    """Return a hash of the tokens in their order."""
    data = "\n".join(token_list).encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=KEY_BYTES).hexdigest()
