"""Stores of version 0.2: read their shards, renew their headers.

``shard-NNNNN.bin`` has a magic line and three arrays in NumPy's format: keys (S,) of 16
bytes in ascending order, starts (S + 1,) int64, vectors (R, C) float16.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import AbsTeacher
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store.header import CACHE, StoreHeader, other_content
from espnet_cif_hkd.teachers.store.shard import KEY, Found, Shard

SUFFIX = ".bin"
_MAGIC = b"espnet_cif_hkd shard 1\n"


class OldShard(Shard):
    """A shard of version 0.2, with the interface of :class:`Shard`."""

    def _find_arrays(self, stream: IO[bytes]) -> tuple[Found, int]:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as a shard does")
        found, end = {}, stream.tell()
        for name in ("keys", "starts", "vectors"):
            stream.seek(end)
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("an array of it has another format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            begin = stream.tell()
            end = begin + int(np.prod(shape)) * dtype.itemsize
            if name == "keys" and dtype == KEY:
                dtype, shape = np.dtype("u1"), (*shape, dtype.itemsize)
            found[name] = (dtype, shape, begin)
        return found, end


def old_header(values: dict[str, Any]) -> StoreHeader:
    """Convert a header of version 0.2 to the current form."""
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
    """Compare an old store with its teacher, which is opened; write a new header.

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
    """Return the fingerprint of version 0.2: loaded weights, and the token list."""
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
