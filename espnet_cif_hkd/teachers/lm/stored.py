"""Labels of a language model that are read from a store."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.teachers.base import Targets, Tokens
from espnet_cif_hkd.teachers.lm.controls import UnigramLM
from espnet_cif_hkd.teachers.lm.labels import LMTeacher, our_names
from espnet_cif_hkd.teachers.store.header import (
    HEADER,
    OtherTeacherError,
    check_header,
)
from espnet_cif_hkd.teachers.store.reader import StoreBacked, StoreReader


class StoredLM(StoreBacked, LMTeacher):
    """An LM whose labels were computed before.

    Args:
        folder: The store.
        teacher: The LM of the configuration, for comparison with the header; it is not
            opened.
    """

    teacher: LMTeacher

    def __init__(self, folder: str, teacher: LMTeacher):
        super().__init__(folder, teacher)
        self.name, self.kind = teacher.name, teacher.kind
        self.token_list, self.labels = teacher.token_list, teacher.labels
        self.temperature = teacher.temperature
        self.is_control = teacher.is_control

    def __getstate__(self) -> dict[str, Any]:
        """Copies open the store again; see :class:`StoreBacked`."""
        return StoreBacked.__getstate__(self)

    def open(self) -> StoreReader:
        """See :class:`StoreBacked`."""
        with our_names():
            return super().open()

    def is_stale(self) -> bool:
        """Whether the store was made by another LM, or with other options.

        Raises:
            UserError: The store is damaged, or it cannot be compared with the LM.
        """
        with our_names():
            try:
                check_header(self.folder, self.header(), self.teacher)
            except OtherTeacherError:
                return True
        return False

    def check(self) -> None:
        """Check what the next dump needs: a good store, or else a good LM.

        The dump fills a missing or stale store, and counts the units for
        ``lm_type: unigram``, if there is no file of counts.
        """
        if (self.folder / HEADER).is_file():
            with our_names(), suppress(OtherTeacherError):
                super().open()
                return
        if not (isinstance(self.teacher, UnigramLM) and self.teacher.is_missing):
            self.teacher.check()

    def targets(self, items: Sequence[Tokens], device: torch.device) -> Targets:
        """See :class:`LMTeacher`.

        Raises:
            UserError: The labels of a sentence are not in the store.
        """
        with our_names():
            found = super().targets(items, device)
        # Stored in float16: their sum is 1 within 1e-3 only.
        shares = found.tensors["probabilities"]
        found.tensors["probabilities"] = shares / shares.sum(1, keepdim=True)
        return found

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Not used: a store has labels only."""
        raise NotImplementedError
