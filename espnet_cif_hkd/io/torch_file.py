"""Whether a file of ``torch.save`` was written to its end, without torch."""

import zipfile
from pathlib import Path


def is_complete(path: Path) -> bool:
    """Whether there is a file, and it is not cut off.

    torch writes zip archives, whose directory comes last. Files of torch before 1.6
    are pickles; of those only an empty one is recognised as cut off.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError:
        return False
    if start and not b"PK\x03\x04".startswith(start[:4]):
        return True
    return zipfile.is_zipfile(path)
