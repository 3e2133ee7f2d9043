"""The kinds of targets of a teacher, and their format in a store.

There are three kinds: a vector for each token, a vector for each frame, and the K most
probable labels of each token. An item has any number of rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError

KINDS = ("tokens", "frames", "labels")
CODINGS = ("float16", "int8")
_LARGEST_CODE = 127

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Payload:
    """Kind and width of a teacher's targets.

    Attributes:
        kind: ``tokens`` or ``frames``: a tensor ``vectors`` (R, C); or ``labels``:
            tensors ``ids`` (R, K) and ``probabilities`` (R, K).
        width: C or K.
        coding: format of stored vectors: ``float16``; for frames also ``int8`` with a
            float32 scale for each row. Labels are stored as int32 and float16.

    Raises:
        UserError: the kind or the coding is unknown.
    """

    kind: str
    width: int
    coding: str = "float16"

    def __post_init__(self) -> None:
        codings = CODINGS if self.kind == "frames" else CODINGS[:1]
        if self.kind not in KINDS or self.coding not in codings or self.width < 1:
            raise UserError(
                f"targets of kind {self.kind!r}, width {self.width} and coding "
                f"{self.coding!r} cannot be stored; kinds are {', '.join(KINDS)}, and "
                "only frames can be coded as int8"
            )

    @property
    def arrays(self) -> dict[str, tuple[np.dtype[Any], int]]:
        """Return dtype and width of each stored array, by name."""
        if self.kind == "labels":
            return {
                "ids": (np.dtype("<i4"), self.width),
                "probabilities": (np.dtype("<f2"), self.width),
            }
        if self.coding == "int8":
            return {
                "vectors": (np.dtype("i1"), self.width),
                "scales": (np.dtype("<f4"), 1),
            }
        return {"vectors": (np.dtype("<f2"), self.width)}

    @property
    def row_bytes(self) -> int:
        """Return the number of bytes of a stored row."""
        return sum(dtype.itemsize * width for dtype, width in self.arrays.values())

    def encode(self, targets: Mapping[str, Tensor]) -> Arrays:
        """Convert targets, on any device, to the arrays of a store.

        Raises:
            UserError: a value is not finite or does not fit float16.
        """
        tensors = {name: tensor.detach() for name, tensor in targets.items()}
        if self.coding == "int8":
            vectors = tensors["vectors"].float()
            scales = vectors.abs().amax(1, keepdim=True) / _LARGEST_CODE
            codes = (
                vectors / scales.clamp(min=torch.finfo(torch.float32).tiny)
            ).round()
            _check_finite(vectors, scales)
            return {
                "vectors": codes.to(torch.int8).cpu().numpy(),
                "scales": _host(scales),
            }
        coded: Arrays = {}
        for name, (dtype, _) in self.arrays.items():
            if dtype.kind == "i":
                coded[name] = _host(tensors[name].to(torch.int32))
                continue
            halves = tensors[name].half()
            _check_finite(tensors[name], halves)
            coded[name] = _host(halves)
        return coded

    def decode(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert stored arrays to targets: float32, and int64 for label ids."""
        if self.coding == "int8":
            return {"vectors": arrays["vectors"].float() * arrays["scales"]}
        return {
            name: tensor.long() if name == "ids" else tensor.float()
            for name, tensor in arrays.items()
        }


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _check_finite(given: Tensor, coded: Tensor) -> None:
    if bool(coded.isfinite().all()):
        return
    raise UserError(
        "the teacher's targets do not fit float16 (the largest is "
        f"{float(given.abs().max()):.3g}); use the teacher without a store, or another "
        "layer"
    )
