"""Find AISHELL-1 on this machine, or download and unpack it."""

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
# Markers of the recipes of Kaldi, ESPnet and lhotse for an archive that is completely
# unpacked. Ours writes the first, so that they find a complete corpus.
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

# Space for the archive, the archives of speakers while they are removed one by one, and
# the recordings, as a multiple of the archive's size.
_ROOM = 2.4


def obtain(root: Path, data_url: str, remove_archive: bool) -> Path:
    """Return the folder ``data_aishell``, all its recordings unpacked.

    Args:
        root: the value of AISHELL: the folder that contains ``data_aishell``, that
            folder itself, or the folder to download the corpus to.
        data_url: the address of openslr's files.
        remove_archive: delete the archive once it is unpacked.

    Raises:
        UserError: the folder does not exist and is not ``downloads``, its path has a
            blank, or downloading, unpacking or removing failed.
    """
    if any(letter.isspace() for letter in str(root)):
        raise UserError(f"AISHELL={root}: wav.scp cannot contain a path with a blank")
    data = _found(root)
    if data is None:
        if not root.is_dir() and root != Path("downloads"):
            raise UserError(
                f"AISHELL={root}: no such folder; name the folder that contains "
                f"{FOLDER}/, or create it and the corpus is downloaded there"
            )
        data = root / FOLDER
        if not data.exists():
            # The corpus was unpacked earlier and then removed.
            for archive in ARCHIVES:
                forget_extracted(root / archive.name, root)
        _fetch(root, data_url)
    _unpack_speakers(data / "wav", ours=is_extracted(root / ARCHIVES[0].name, root))
    if is_extracted(root / ARCHIVES[0].name, root):
        mark = data / _UNPACKED_BY_OTHERS[0]
        # Our recipe does not need the marker, and a shared corpus may be read-only.
        with suppress(OSError):
            if not mark.exists():
                mark.touch()
        if remove_archive:
            remove(root / ARCHIVES[0].name, "run with --remove_archive false")
    return data


def _found(root: Path) -> Path | None:
    """The corpus, or None if it is missing or not completely unpacked."""
    for data in (root / FOLDER, root):
        if (data / TRANSCRIPT).is_file() and (data / "wav").is_dir():
            archive = data.parent / ARCHIVES[0].name
            complete = any((data / name).exists() for name in _UNPACKED_BY_OTHERS)
            if complete or not archive.exists() or is_extracted(archive, data.parent):
                return data
    return None


def _fetch(root: Path, data_url: str) -> None:
    log(f"downloading AISHELL-1 to {root}: 15.6 GB, 37 GB while it is unpacked")
    outer = root / ARCHIVES[0].name
    if not is_extracted(outer, root):
        here = [path for path in (outer, Path(f"{outer}.part")) if path.is_file()]
        needed = int(_ROOM * ARCHIVES[0].size_bytes)
        needed -= sum(path.stat().st_size for path in here)
        require_space(root, needed, "AISHELL-1", "set AISHELL to another folder")
    for archive in ARCHIVES:
        path = root / archive.name
        if not is_extracted(path, root):
            url = f"{data_url.rstrip('/')}/{archive.name}"
            fetch(url, path, size_bytes=archive.size_bytes, md5=archive.md5)
            log(f"unpacking {path}")
            extract_tar(path, root)


def _unpack_speakers(wav: Path, ours: bool) -> None:
    """Unpack each ``wav/SPEAKER.tar.gz``; remove those that we unpacked ourselves."""
    if not any(wav.glob("*.tar.gz")):
        return
    if not os.access(wav, os.W_OK):
        log(f"{wav} is read-only: assuming that its archives are unpacked")
        return
    with alone(wav / ".speakers.lock", log):
        archives = sorted(wav.glob("*.tar.gz"))
        speakers = progress(archives, len(archives), f"unpacking speakers in {wav}")
        for archive in speakers:
            extract_tar(archive, wav)
            if ours:
                remove(archive, "its recordings are unpacked")
                forget_extracted(archive, wav)
