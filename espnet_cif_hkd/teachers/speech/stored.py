"""Vectors of a speech teacher that are read from a store."""

from collections.abc import Sequence

import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.store.header import HEADER, dump_hint
from espnet_cif_hkd.teachers.store.reader import StoreBacked


class StoredSpeechTeacher(StoreBacked, SpeechTeacher):
    """A speech teacher whose vectors were computed before.

    Args:
        folder: The store.
        teacher: The teacher of the configuration, for comparison with the header; it is
            not opened.
    """

    teacher: SpeechTeacher
    targets = SpeechTeacher.targets

    @property
    def times(self) -> FrameTimes:
        """See :class:`SpeechTeacher`; the store knows it without the model's files."""
        made = self.header().teacher if (self.folder / HEADER).is_file() else {}
        if "frame offset" in made and "frame stride" in made:
            return FrameTimes(made["frame offset"], made["frame stride"])
        return self.teacher.times

    def features_by_key(
        self, keys: Sequence[bytes], device: torch.device
    ) -> list[Tensor | None]:
        """Return the vectors of recordings, (T_i, C) float32, or None if not stored.

        Args:
            keys: :func:`~espnet_cif_hkd.teachers.speech.base.recording_key` of each.
            device: Device of the result.
        """
        reader = self.open()
        found = reader.find(keys)
        sizes, arrays = reader.read([place for place in found if place is not None])
        tensors = {name: on_device(array, device) for name, array in arrays.items()}
        parts = iter(self.payload.decode(tensors)["vectors"].split(sizes))
        return [None if place is None else next(parts) for place in found]

    def features(
        self, recordings: Sequence[Recording], device: torch.device
    ) -> list[Tensor]:
        """See :class:`SpeechTeacher`.

        Raises:
            UserError: A recording is not in the store.
        """
        keys = [self.key(one) for one in recordings]
        found = self.features_by_key(keys, device)
        complete = []
        for recording, vectors in zip(recordings, found, strict=True):
            if vectors is None:
                raise UserError(
                    f"teacher_store {self.folder}: has no vectors for "
                    f"{self.spell(recording)}; either its audio was not dumped, or the "
                    "training changes it (speed perturbation, noise, or another random "
                    "augmentation), which a store cannot follow: switch that off, or "
                    f"{dump_hint(self.payload.kind)}"
                )
            complete.append(vectors)
        return complete
