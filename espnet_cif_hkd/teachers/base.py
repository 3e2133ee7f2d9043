"""What every teacher is: a frozen model that turns items into targets.

An item is what the teacher reads: the token ids of a transcript for text teachers and
language models, the samples of a recording for speech teachers. A teacher is no part
of the student: no state dict, optimiser or DDP sees it, and decoding never opens one.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.teachers.payload import Payload

KEY_BYTES = 16

Item = TypeVar("Item")
Tokens = Sequence[int]


@dataclass(frozen=True)
class Targets:
    """Targets of some items, one item after the other.

    Attributes:
        sizes: rows of each item.
        tensors: (R, …) by the names of the teacher's payload; R is the sum of
            ``sizes``.
    """

    sizes: list[int]
    tensors: dict[str, Tensor]


class AbsTeacher(ABC, Generic[Item]):
    """A teacher of any kind.

    Attributes:
        payload: what it gives for an item.
    """

    payload: Payload

    @abstractmethod
    def open(self) -> Any:
        """Load whatever :meth:`targets` needs, unless it is loaded.

        Raises:
            UserError: something is missing, or the teacher cannot be used.
        """

    @abstractmethod
    def key(self, item: Item) -> bytes:
        """The 16 bytes by which a store finds ``item``, a hash of its content."""

    @abstractmethod
    def targets(self, items: Sequence[Item], device: torch.device) -> Targets:
        """Targets of a batch, on ``device``; opens the teacher."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The options that the targets depend on, by the names that messages use.

        JSON values only. Opens nothing. ``name`` and ``revision`` say where the teacher
        is and are not compared: :meth:`fingerprint` is. ``layer`` counts from the
        embedding once the teacher is open, beside ``num_layers``; before it may be
        negative.
        """

    @abstractmethod
    def fingerprint(self, cache: Path | None = None) -> str | None:
        """Hash of the teacher's content: the same wherever its files are.

        Args:
            cache: a file that keeps hashes of large files between calls.

        Returns:
            None if its files cannot be found here.
        """

    def n_rows(self, item: Item) -> int:
        """About how many rows the targets of ``item`` have."""
        return len(item) + 1  # type: ignore[arg-type]

    def spell(self, item: Item) -> str:
        """How a message names ``item``."""
        return repr(item)[:80]


class TextTeacher(AbsTeacher[Tokens]):
    """A teacher that gives a vector to each token of a transcript and to ``<eos>``.

    Attributes:
        token_list: of the ASR model.
        token_type: of the ASR model; None infers it.
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
        """The teacher that a ``criterion_conf`` describes; opens nothing.

        Raises:
            UserError: an option is missing or wrong.
        """

    @abstractmethod
    def features(self, sequences: Sequence[Tokens], device: torch.device) -> Tensor:
        """Teacher vectors of a batch.

        Args:
            sequences: token ids of B sentences, without ``<eos>``.
            device: of the result.

        Returns:
            (N, C) float32, one sentence after the other, each with its ``<eos>``:
            N is the sum of their lengths + B.
        """

    def check(self) -> list[str]:
        """Check all that does not need weights; ``token_list`` may be empty.

        Returns:
            Tokens of the list that the teacher does not know.

        Raises:
            UserError: says what is wrong and how to correct it.
        """
        return []

    def spell(self, item: Tokens) -> str:
        """The sentence as it is written."""
        from espnet_cif_hkd.teachers.text.spelling import TokenSpeller

        speller = TokenSpeller(self.token_list, self.token_type, "<unk>")
        return f"the sentence {speller(item).text!r}"

    def key(self, item: Tokens) -> bytes:
        """BLAKE2b hash of the token ids as little-endian int32."""
        return sequence_key(item)

    def targets(self, items: Sequence[Tokens], device: torch.device) -> Targets:
        """See :class:`AbsTeacher`; ``vectors`` (N, C) float32."""
        sizes = [len(item) + 1 for item in items]
        return Targets(sizes, {"vectors": self.features(items, device)})


def sequence_key(ids: Tokens) -> bytes:
    """16-byte BLAKE2b hash of a token id sequence (as little-endian int32)."""
    data = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


def token_list_hash(token_list: Sequence[str]) -> str:
    """Hash of the tokens in their order."""
    data = "\n".join(token_list).encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=KEY_BYTES).hexdigest()
