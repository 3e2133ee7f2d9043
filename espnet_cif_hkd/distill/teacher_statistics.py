"""Statistics of a teacher's vectors that a checkpoint contains, with their origin."""

import hashlib
import json
import logging
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.teachers.base import AbsTeacher
from espnet_cif_hkd.teachers.store.reader import StoreBacked

_BYTES = 8


class TeacherStatistics(torch.nn.Module):
    """Buffers with statistics of a teacher, which a resumed training keeps.

    ``teacher_digest`` says which teacher they are of, so that those of another one,
    such as from ``--init_param``, are not used. It is 0 in checkpoints of earlier
    versions, whose statistics are trusted.
    """

    teacher_digest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("teacher_digest", torch.zeros(_BYTES))
        # Whether the statistics are those of the teacher of this training.
        self._prepared = False

    def keeps(self, deviation: Tensor, teacher: AbsTeacher[Any]) -> bool:
        """Whether a checkpoint had the statistics of ``teacher``; notes the teacher.

        Args:
            deviation: A buffer of the statistics that is 0 until they are known.
            teacher: The teacher of this training.
        """
        digest, noted = _digest_of(teacher), self.teacher_digest.cpu().float()
        other = bool(noted.any()) and not torch.equal(noted, digest)
        if other:
            logging.warning(
                "the checkpoint has statistics of another teacher than %s: they are "
                "computed again",
                teacher.describe().get("name"),
            )
        self.teacher_digest.copy_(digest)
        return bool(deviation.any()) and not other

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        noted = {prefix + "teacher_digest": torch.zeros(_BYTES), **state_dict}
        super()._load_from_state_dict(noted, prefix, *args, **kwargs)
        self._prepared = False


def _digest_of(teacher: AbsTeacher[Any]) -> Tensor:
    """Return a hash of what determines the vectors of a teacher, (8,) float32.

    For a store it is that of the header, which needs no file of the teacher. Each byte
    is a float, because ESPnet averages checkpoints: the mean of equal ones is exact.
    """
    if isinstance(teacher, StoreBacked):
        made = asdict(teacher.header())
    else:
        made = {"teacher": teacher.describe(), "fingerprint": teacher.fingerprint()}
    text = json.dumps(made, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=_BYTES).digest()
    return torch.tensor(list(digest), dtype=torch.float32)
