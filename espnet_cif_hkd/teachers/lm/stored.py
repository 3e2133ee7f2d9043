"""Labels of a language model that are read from a store."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.teachers.base import Targets, Tokens
from espnet_cif_hkd.teachers.lm.labels import LMTeacher, our_names
from espnet_cif_hkd.teachers.store.header import HEADER
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

    def check(self) -> None:
        """Compare the store with the LM, if the store exists; else check the LM."""
        if (self.folder / HEADER).is_file():
            self.open()
        else:
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
