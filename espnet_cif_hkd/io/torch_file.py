"""Check, without torch, that a file of ``torch.save`` is complete."""

import zipfile
from pathlib import Path


def is_complete(path: Path) -> bool:
    """Whether the file exists and is not truncated.

    torch writes zip archives, whose directory is at the end. Files of torch before 1.6
    are pickles; of these only an empty file is recognised as truncated.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError:
        return False
    if start and not b"PK\x03\x04".startswith(start[:4]):
        return True
    return zipfile.is_zipfile(path)
