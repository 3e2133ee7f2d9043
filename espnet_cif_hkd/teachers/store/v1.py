"""Stores of version 0.2: their shards are read, their headers renewed.

``shard-NNNNN.bin`` is a magic line and three arrays in NumPy's format: keys (S,) of 16
bytes in ascending order, starts (S + 1,) int64, vectors (R, C) float16.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import AbsTeacher
from espnet_cif_hkd.teachers.payload import Arrays, Payload
from espnet_cif_hkd.teachers.store.header import CACHE, StoreHeader, other_content
from espnet_cif_hkd.teachers.store.shard import KEY, Shard

SUFFIX = ".bin"
_MAGIC = b"espnet_cif_hkd shard 1\n"


class OldShard(Shard):
    """A shard of version 0.2, with the interface of :class:`Shard`."""

    def _read(self) -> Arrays:
        if self._map.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as a shard does")
        keys, starts, vectors = (self._next() for _ in range(3))
        if self._map.tell() != len(self._map) or keys.dtype != KEY:
            raise ValueError("it does not end where its arrays do")
        keys = keys.view(np.uint8).reshape(len(keys), -1)
        return {"keys": keys, "starts": starts, "vectors": vectors}

    def _next(self) -> np.ndarray:
        """The array that begins at the map's position."""
        stream: Any = self._map
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("an array of it has another format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        begin, count = stream.tell(), int(np.prod(shape))
        stream.seek(begin + count * dtype.itemsize)
        if not count:
            return np.zeros(shape, dtype)
        return np.frombuffer(self._map, dtype, count, begin).reshape(shape)


def old_header(values: dict[str, Any]) -> StoreHeader:
    """A header of version 0.2 in today's form."""
    options = {
        "teacher": "name",
        "revision": "revision",
        "layer": "layer",
        "num_layers": "num_layers",
        "dtype": "teacher_dtype",
        "case": "case",
        "token_type": "token type",
        "n_tokens": "n_tokens",
        "token_list": "token list",
    }
    made = {new: values[old] for old, new in options.items()}
    payload = Payload("tokens", values["dim"])
    return StoreHeader(payload, {"type": "plm", **made}, None, values["fingerprint"])


def renew(folder: Path, header: StoreHeader, teacher: AbsTeacher[Any]) -> StoreHeader:
    """Compare an old store with its teacher, opened, and write today's header.

    Raises:
        UserError: the teacher is another one, or its vectors were aligned wrongly.
    """
    opened = teacher.open()
    names: Sequence[str] = getattr(teacher, "token_list", [])
    if _fingerprint(opened, names) != header.old_fingerprint:
        raise other_content(folder, teacher)
    text = " ".join(names)
    encoded = opened.tokenizer(text, return_offsets_mapping=True, verbose=False)
    if any(text[a:b] != text[a:b].strip() for a, b in encoded["offset_mapping"]):
        raise UserError(
            f"teacher_store {folder}: version 0.2 made it, which aligned the spaces of "
            "this teacher's tokenizer wrongly; dump into another folder"
        )
    made = {**header.teacher, "alignment": teacher.describe()["alignment"]}
    content = teacher.fingerprint(folder / CACHE)
    renewed = StoreHeader(header.payload, made, content)
    renewed.write(folder)
    return renewed


def _fingerprint(opened: Any, token_list: Sequence[str]) -> str:
    """What version 0.2 compared: loaded weights, and the tokens of the token list."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(opened.model.state_dict().items()):
        if "pooler" not in name:
            digest.update(name.encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    text = " ".join(token_list)
    encoded = opened.tokenizer(text, return_offsets_mapping=True, verbose=False)
    digest.update(repr((encoded["input_ids"], encoded["offset_mapping"])).encode())
    return digest.hexdigest()
