"""Hashes of files."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 20


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal, read block by block."""
    found = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights in a model folder; of a sharded model, its path."""
    weights = folder / "model.safetensors"
    return sha256(weights) if weights.is_file() else str(folder)
