"""The interface of speech teachers, and the recordings that they read.

A recording is identified by its samples, not by its name: speed-perturbed copies have
their own targets, and a model can look targets up by the ``speech`` that ESPnet's
trainer gives it.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import KEY_BYTES, AbsTeacher, Targets

FULL_SCALE = 1 << 15
# Samples above it are integers. Float samples may exceed 1, if they are clipped later.
HIGHEST_PEAK = 10.0


@dataclass(frozen=True, eq=False)
class Recording:
    """The audio of one utterance.

    Attributes:
        samples: (S,) float32, one channel, full scale is 1, as ESPnet reads audio.
        rate: Samples per second.
        name: Name of the utterance, for messages.
    """

    samples: np.ndarray
    rate: int
    name: str = "a recording"

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.rate

    @property
    def key(self) -> bytes:
        """Result of :func:`recording_key` for the samples."""
        return recording_key(self.samples)

    def __str__(self) -> str:
        """Return the name and the duration."""
        return f"{self.name} ({self.seconds:.2f} s)"


def recording_key(samples: np.ndarray) -> bytes:
    """Return a 16-byte BLAKE2b hash of samples, rounded to 16 bits.

    Args:
        samples: (S,) float; full scale is 1.
    """
    coded = np.rint(np.asarray(samples, dtype=np.float32) * FULL_SCALE)
    return coded_key(coded.clip(-FULL_SCALE, FULL_SCALE - 1).astype("<i2"))


def full_scales(speech: Tensor) -> Tensor:
    """Return the value of full scale in the samples of each utterance.

    ESPnet reads sound files and its own archives (``--audio_format flac.ark``) with
    full scale 1, but Kaldi's archives of wav files with full scale 32768.

    Args:
        speech: Samples, (B, S) float; padding is zero or NaN.

    Returns:
        (B, 1) int64, on the device of ``speech``.
    """
    loud = (speech.abs() > HIGHEST_PEAK).any(1, keepdim=True)
    return torch.where(loud, FULL_SCALE, 1)


def coded_key(codes: np.ndarray) -> bytes:
    """Return the key of samples that are rounded already, (S,) little-endian int16."""
    return hashlib.blake2b(codes.data, digest_size=KEY_BYTES).digest()


class SpeechTeacher(AbsTeacher[Recording]):
    """A teacher with one vector for each frame of a recording.

    The vectors of a recording never depend on the other recordings of a batch.
    ``payload.kind`` is ``frames``.
    """

    @classmethod
    @abstractmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> "SpeechTeacher":
        """Build the teacher of a mapping of options; opens nothing.

        Raises:
            UserError: An option is missing or wrong.
        """

    @property
    @abstractmethod
    def times(self) -> FrameTimes:
        """Centres of the teacher's frames in seconds."""

    @abstractmethod
    def features(
        self, recordings: Sequence[Recording], device: torch.device
    ) -> list[Tensor]:
        """Return the vectors of each recording, (T_i, C) float32 on ``device``."""

    def key(self, item: Recording) -> bytes:
        """Return :func:`recording_key` of the samples."""
        return item.key

    @property
    def shortest(self) -> float:
        """Seconds that the shortest recording with a frame has, or a little less."""
        return self.times.stride / 2

    def architecture(self) -> str:
        """Return what :meth:`from_architecture` needs, as text; opens the teacher.

        Raises:
            UserError: The teacher has no weights that a checkpoint could hold.
        """
        raise UserError(
            f"{type(self).__name__} cannot be in a checkpoint; set weights: reference"
        )

    @classmethod
    def from_architecture(
        cls, conf: Mapping[str, Any], architecture: str
    ) -> "SpeechTeacher":
        """Build a teacher without its files; its weights are to be loaded.

        Args:
            conf: As for :meth:`from_conf`.
            architecture: Result of :meth:`architecture`.

        Raises:
            UserError: An option does not fit.
        """
        raise UserError(f"{cls.__name__} cannot be in a checkpoint")

    def use(self, model: Any) -> None:
        """Compute with ``model``, which has the class of the result of :meth:`open`."""
        raise UserError(f"{type(self).__name__} has no model that can be replaced")

    def n_rows(self, item: Recording) -> int:
        """Return the approximate number of frames of a recording."""
        return max(1, int(item.seconds / self.times.stride))

    def spell(self, item: Recording) -> str:
        """Return the name and the duration of a recording."""
        return str(item)

    def targets(self, items: Sequence[Recording], device: torch.device) -> Targets:
        """See :class:`AbsTeacher`; ``vectors`` (R, C) float32."""
        found = self.features(items, device)
        return Targets([len(one) for one in found], {"vectors": torch.cat(found)})
