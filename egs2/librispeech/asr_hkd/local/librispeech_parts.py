"""The parts of LibriSpeech: known sizes and checksums, and downloading."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.disk import require_space
from espnet_cif_hkd.io.fetch import extract_tar, fetch, forget_extracted
from espnet_cif_hkd.io.log import log

DATA_URL = "https://www.openslr.org/resources/12"
LM_URL = "https://www.openslr.org/resources/11/librispeech-lm-norm.txt.gz"
LM_BYTES = 1_507_274_412
# The size of the text with numbered lines as a multiple of its archive.
LM_GROWTH = 3.6
LM_SHA256 = "927d47656638c2ca93566640e56bcbeb2aa4ca237b8490fe1eff7d6e610a53c7"


@dataclass(frozen=True)
class Part:
    """One archive: size in bytes, MD5 and number of utterances."""

    size_bytes: int
    md5: str
    utterances: int


PARTS = {
    "dev-clean": Part(337_926_286, "42e2234ba48799c1f50f24a7926300a1", 2_703),
    "dev-other": Part(314_305_928, "c8d0bcc9cca99d4f8b62fcc847357931", 2_864),
    "test-clean": Part(346_663_984, "32fa31d27d2e1cad72775fee3f4849a9", 2_620),
    "test-other": Part(328_757_843, "fb5a50374b501bb3bac4815ee91d3135", 2_939),
    "train-clean-100": Part(6_387_309_499, "2a93770f6d5c6c964bc36631d331a522", 28_539),
    "train-clean-360": Part(
        23_049_477_885, "c0e676e450a7ff2f54aeade5171606fa", 104_014
    ),
    "train-other-500": Part(
        30_593_501_606, "d1a0fd59409feb2c614ce4d30c387708", 148_688
    ),
}
HELD_OUT = ("dev-clean", "dev-other", "test-clean", "test-other")
TRAINING = {
    "960": ("train-clean-100", "train-clean-360", "train-other-500"),
    "100": ("train-clean-100",),
}
# Sets made of several parts, under the names of ESPnet's recipes.
UNIONS = {
    "dev": ("dev-clean", "dev-other"),
    "train_960": TRAINING["960"],
}


def data_name(part: str) -> str:
    """The data folder of a part, such as ``dev_clean``."""
    return part.replace("-", "_")


def corpus_folder(root: Path) -> Path:
    """The folder of the parts: ``LibriSpeech`` in ``root``."""
    return root / "LibriSpeech"


def archive_of(part: str, root: Path) -> Path:
    """The archive of a part, in the same folder as ``LibriSpeech``."""
    return root / f"{part}.tar.gz"


def recordings(folder: Path) -> int:
    """The number of FLAC files of a part (0 if its folder does not exist)."""
    return sum(1 for _ in folder.glob("*/*/*.flac"))


def obtain(parts: Iterable[str], root: Path, url: str) -> dict[str, Path]:
    """The folders of parts; missing ones are downloaded and extracted.

    A folder with all its recordings is used unchanged. An incomplete one is extracted
    again if its archive is there, and otherwise left unchanged: the caller decides
    about missing recordings.

    Raises:
        UserError: there is not enough space, or a missing part cannot be downloaded or
            extracted.
    """
    missing, needed = [], 0
    folders = {part: corpus_folder(root) / part for part in parts}
    for part, folder in folders.items():
        found, archive = recordings(folder), archive_of(part, root)
        if found < PARTS[part].utterances and (archive.is_file() or not found):
            missing.append(part)
            needed += _room(part, archive, found)
    require_space(root, needed, "LibriSpeech", "set LIBRISPEECH to another folder")
    for part in missing:
        _obtain(part, root, url)
    return folders


def _room(part: str, archive: Path, found: int) -> int:
    """Bytes that a part will need: FLAC is as large as in the archive."""
    size = PARTS[part].size_bytes
    needed = size - size * found // PARTS[part].utterances
    if not archive.is_file():
        begun = archive.with_name(f"{archive.name}.part")
        needed += size - (begun.stat().st_size if begun.is_file() else 0)
    return needed


def _obtain(part: str, root: Path, url: str) -> None:
    folder, archive = corpus_folder(root) / part, archive_of(part, root)
    known = PARTS[part]
    if not archive.is_file():
        log(f"{folder} is missing: downloading {known.size_bytes / 1e9:.1f} GB")
        address = f"{url.rstrip('/')}/{archive.name}"
        try:
            fetch(address, archive, size_bytes=known.size_bytes, md5=known.md5)
        except (OSError, UserError) as error:
            raise UserError(
                f"{part} is not in {corpus_folder(root)}, and {error}. If LibriSpeech "
                "is elsewhere, set LIBRISPEECH to the folder that contains it"
            ) from error
    # It may have been unpacked before, but something is missing now.
    forget_extracted(archive, root)
    extract_tar(archive, root)
    if not recordings(folder):
        raise UserError(
            f"{archive} does not contain LibriSpeech/{part}: it is another archive; "
            "remove it"
        )
