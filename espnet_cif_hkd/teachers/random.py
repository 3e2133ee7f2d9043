"""A teacher without knowledge: the control for every claim about a teacher.

Each token of the recogniser has one random vector, independent of its neighbours. A
gain with this teacher does not come from the knowledge of a language model.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import TextTeacher, Tokens, own_conf, token_list_hash
from espnet_cif_hkd.teachers.payload import Payload

_OPTIONS = {"seed": 1, "variance": None}


class RandomTeacher(TextTeacher):
    """One fixed vector for each token id, and one for ``<eos>``.

    Args:
        dim: C, width of the vectors.
        token_list: tokens of the ASR model.
        seed: seed of the vectors.
        variance: squared length of each vector; LRD begins with about this loss per
            token. None means C: a standard normal number in each dimension.

    Raises:
        UserError: an option is out of range.
    """

    def __init__(
        self,
        dim: int,
        token_list: Sequence[str],
        seed: int = 1,
        variance: float | None = None,
    ):
        size = dim if variance is None else variance
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(
                f"teacher_conf.seed is {seed!r}; it must be an integer >= 0"
            )
        if (
            isinstance(size, bool)
            or not isinstance(size, (int, float))
            or not 0 < size < math.inf
        ):
            raise UserError(f"teacher_conf.variance is {size!r}; it must be > 0")
        self.payload = Payload("tokens", dim)
        self.token_list = list(token_list)
        self.seed = seed
        self.variance = float(size)
        self._vectors: Tensor | None = None

    @classmethod
    def from_conf(
        cls,
        conf: Mapping[str, Any],
        token_list: Sequence[str],
        token_type: str | None = None,
    ) -> "RandomTeacher":
        """See :class:`TextTeacher`; reads ``teacher_dim`` and ``teacher_conf``."""
        dim = conf.get("teacher_dim")
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise UserError(
                f"criterion_conf.teacher_dim is {dim!r}; set it to the width of the "
                "random vectors, an integer >= 1"
            )
        options = own_conf(conf, "teacher_conf")
        for name in options:
            if name not in _OPTIONS:
                raise UserError(
                    f"teacher_conf: the random teacher has no option {name!r}; there "
                    f"are {', '.join(_OPTIONS)}"
                )
        return cls(dim, token_list, **{**_OPTIONS, **options})

    def open(self) -> Tensor:
        """Return the vectors of all tokens, then of ``<eos>``: (V + 1, C) float32."""
        if self._vectors is None:
            shape = (len(self.token_list) + 1, self.payload.width)
            generator = torch.Generator().manual_seed(self.seed)
            vectors = torch.randn(shape, generator=generator)
            # All vectors have the same length, as the normalised ones of a model.
            length = vectors.norm(dim=1, keepdim=True)
            self._vectors = vectors * (self.variance**0.5 / length)
        return self._vectors

    def features(self, sequences: Sequence[Tokens], device: torch.device) -> Tensor:
        """See :class:`TextTeacher`."""
        if self._vectors is None or self._vectors.device != device:
            self._vectors = self.open().to(device)
        eos = len(self.token_list)
        ids = torch.tensor([i for ids in sequences for i in (*ids, eos)]).long()
        return self._vectors.index_select(0, on_device(ids.numpy(), device))

    def sample(self) -> Iterator[Tensor]:
        """Yield the vectors of all tokens and of ``<eos>``."""
        yield self.open()

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsTeacher`."""
        return {
            "type": "random",
            "name": "random",
            "seed": self.seed,
            "variance": self.variance,
            "n_tokens": len(self.token_list),
            "token list": token_list_hash(self.token_list),
        }

    def fingerprint(self, cache: Path | None = None) -> str:
        """Return a hash of the vectors; see :class:`AbsTeacher`."""
        data = self.open().cpu().numpy().tobytes()
        return hashlib.blake2b(data, digest_size=16).hexdigest()
