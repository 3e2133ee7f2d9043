"""Find AISHELL-1 on this machine, or fetch and unpack it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.disk import remove, require_space
from espnet_cif_hkd.io.fetch import (
    extract_tar,
    fetch,
    forget_extracted,
    is_extracted,
)
from espnet_cif_hkd.io.lock import alone
from espnet_cif_hkd.io.log import log, progress

DATA_URL = "https://www.openslr.org/resources/33"
TRANSCRIPT = Path("transcript/aishell_transcript_v0.8.txt")
FOLDER = "data_aishell"
# Left by Kaldi's, ESPnet's and lhotse's recipes when they have unpacked the archive;
# ours leaves the first, so that theirs find the corpus whole.
_UNPACKED_BY_OTHERS = (".complete", ".completed")


@dataclass(frozen=True)
class Archive:
    """A file of the corpus; sizes as in Kaldi's recipe, hashes as in PaddleSpeech's."""

    name: str
    size_bytes: int
    md5: str


ARCHIVES = (
    Archive("data_aishell.tgz", 15_582_913_665, "2f494334227864a8a8fec932999db9d8"),
    Archive("resource_aishell.tgz", 1_246_920, "957d480a0fcac85fc18e550756f624e5"),
)

# The archive, the speakers' archives as they disappear, the recordings: in its sizes.
_ROOM = 2.4


def obtain(root: Path, data_url: str, remove_archive: bool) -> Path:
    """Return the folder ``data_aishell``, all its recordings unpacked.

    Args:
        root: what the user calls AISHELL: the folder that has ``data_aishell``, that
            folder itself, or where the corpus shall be fetched to.
        data_url: where openslr's files are.
        remove_archive: whether to delete the archive once it is unpacked.

    Raises:
        UserError: the folder does not exist and is not ``downloads``, its name has a
            blank, or fetching, unpacking or removing failed.
    """
    if any(letter.isspace() for letter in str(root)):
        raise UserError(f"AISHELL={root}: wav.scp cannot hold a path with a blank")
    data = _found(root)
    if data is None:
        if not root.is_dir() and root != Path("downloads"):
            raise UserError(
                f"AISHELL={root}: there is no such folder; name the one that has "
                f"{FOLDER}/ in it, or make it to have the corpus fetched there"
            )
        data = root / FOLDER
        if not data.exists():
            # It was unpacked once, and has been removed since.
            for archive in ARCHIVES:
                forget_extracted(root / archive.name, root)
        _fetch(root, data_url)
    _unpack_speakers(data / "wav", ours=is_extracted(root / ARCHIVES[0].name, root))
    if is_extracted(root / ARCHIVES[0].name, root):
        mark = data / _UNPACKED_BY_OTHERS[0]
        # Ours does without; a corpus may be shared, and not ours to write.
        with suppress(OSError):
            if not mark.exists():
                mark.touch()
        if remove_archive:
            remove(root / ARCHIVES[0].name, "run with --remove_archive false")
    return data


def _found(root: Path) -> Path | None:
    """The corpus, unless there is none or its archive is not all unpacked."""
    for data in (root / FOLDER, root):
        if (data / TRANSCRIPT).is_file() and (data / "wav").is_dir():
            archive = data.parent / ARCHIVES[0].name
            whole = any((data / name).exists() for name in _UNPACKED_BY_OTHERS)
            if whole or not archive.exists() or is_extracted(archive, data.parent):
                return data
    return None


def _fetch(root: Path, data_url: str) -> None:
    log(f"fetching AISHELL-1 to {root}: 15.6 GB, 37 GB while it is unpacked")
    outer = root / ARCHIVES[0].name
    if not is_extracted(outer, root):
        here = [path for path in (outer, Path(f"{outer}.part")) if path.is_file()]
        needed = int(_ROOM * ARCHIVES[0].size_bytes)
        needed -= sum(path.stat().st_size for path in here)
        require_space(root, needed, "AISHELL-1", "name another folder by AISHELL")
    for archive in ARCHIVES:
        path = root / archive.name
        if not is_extracted(path, root):
            url = f"{data_url.rstrip('/')}/{archive.name}"
            fetch(url, path, size_bytes=archive.size_bytes, md5=archive.md5)
            log(f"unpacking {path}")
            extract_tar(path, root)


def _unpack_speakers(wav: Path, ours: bool) -> None:
    """Unpack ``wav/SPEAKER.tar.gz``, if there are any; remove them if they are ours."""
    if not any(wav.glob("*.tar.gz")):
        return
    if not os.access(wav, os.W_OK):
        log(f"{wav} cannot be written: its archives are taken as unpacked")
        return
    with alone(wav / ".speakers.lock", log):
        archives = sorted(wav.glob("*.tar.gz"))
        told = progress(archives, len(archives), f"unpacking speakers in {wav}")
        for archive in told:
            extract_tar(archive, wav)
            if ours:
                remove(archive, "its recordings are unpacked")
                forget_extracted(archive, wav)
