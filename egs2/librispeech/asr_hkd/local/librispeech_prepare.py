"""Prepare LibriSpeech for a Kaldi-style recipe: ``data/{train_960,dev,test_clean,…}``.

The folders are those of ESPnet's egs2/librispeech/asr1. If it was interrupted, run it
again: complete files are not downloaded or extracted twice.
"""

import argparse
import gzip
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from librispeech_parts import (
    DATA_URL,
    HELD_OUT,
    LM_BYTES,
    LM_GROWTH,
    LM_SHA256,
    LM_URL,
    PARTS,
    TRAINING,
    UNIONS,
    archive_of,
    corpus_folder,
    data_name,
    obtain,
)
from librispeech_tables import Tables, check_audio, genders, read_part

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.disk import remove, require_space
from espnet_cif_hkd.io.fetch import fetch
from espnet_cif_hkd.io.log import log

_BOOLEANS = {"true": True, "false": False}


def prepare(
    root: Path,
    hours: str,
    url: str,
    incomplete: bool,
    data: Path,
    remove_archive: bool = False,
) -> None:
    """Write the data folders of one size of training set and of all held-out sets.

    Args:
        root: the folder that contains, or will contain, ``LibriSpeech``.
        hours: "960" or "100".
        url: the address of the archives.
        incomplete: accept a part with missing utterances.
        data: the parent of the data folders.
        remove_archive: delete the archive of a part once it is read.

    Raises:
        UserError: naming the part, file or count that is wrong.
    """
    if any(letter.isspace() for letter in str(root)):
        raise UserError(
            f"LIBRISPEECH={root}: wav.scp cannot contain a path with a blank"
        )
    if not corpus_folder(root).is_dir() and any(
        (root / name).is_dir() for name in PARTS
    ):
        raise UserError(
            f"LIBRISPEECH={root}: name the folder that contains LibriSpeech, not "
            f"LibriSpeech itself: {root.absolute().parent}"
        )
    parts = (*HELD_OUT, *TRAINING[hours])
    # Download everything before reading anything, so that errors come early.
    folders = obtain(parts, root, url)
    gender = genders(corpus_folder(root))
    tables: dict[str, Tables] = {}
    for part, folder in folders.items():
        tables[part] = read_part(folder, gender)
        counted = check_count(part, len(tables[part].text), incomplete)
        log(f"{part}: {counted}, {check_audio(tables[part], part):.2f} hours")
        if remove_archive:
            remove(archive_of(part, root), "run with --remove_archive false")
    for part in parts:
        tables[part].write(data / data_name(part))
    for name, members in UNIONS.items():
        if set(members) <= set(parts):
            union = Tables()
            for part in members:
                union.add(tables[part])
            union.write(data / name)
            log(f"{data / name}: {len(union.text)} utterances")


def check_count(part: str, found: int, incomplete: bool) -> str:
    """Compare the utterances of a part with the known number; returns a message.

    Raises:
        UserError: they differ and ``incomplete`` is False.
    """
    known = PARTS[part].utterances
    if found == known:
        return f"{found} utterances"
    counted = f"{found} of {known} utterances"
    if not incomplete:
        raise UserError(
            f"{part}: {counted}: remove the folder, then it is downloaded or extracted "
            "again, or accept it with --incomplete true"
        )
    return counted


def prepare_lm_text(folder: Path, url: str = LM_URL) -> None:
    """Download the text for language models and number its lines: ``FOLDER/text``.

    Raises:
        UserError: the download failed or is damaged, or there is not enough space.
    """
    target, archive = folder / "text", folder / Path(url).name
    if target.is_file():
        log(f"{target} exists")
        return
    unpacked = int(LM_GROWTH * LM_BYTES)
    cure = "run with --lm_text false"
    if not archive.is_file():
        require_space(folder, unpacked + LM_BYTES, "the text of --lm_text", cure)
    fetch(url, archive, size_bytes=LM_BYTES, sha256=LM_SHA256)
    require_space(folder, unpacked, f"{target}", cure)
    log(f"writing {target} (about {unpacked / 1e9:.0f} GB)")
    part = folder / f".text.{os.getpid()}.part"
    try:
        _number_lines(archive, part)
        part.replace(target)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}; fix this and run "
            "the command again"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _number_lines(archive: Path, target: Path) -> None:
    with (
        gzip.open(archive, "rt", encoding="utf-8") as source,
        target.open("w", encoding="utf-8") as sink,
    ):
        for number, line in enumerate(source, 1):
            # Later stages refuse an utterance without words.
            if line.strip():
                sink.write(f"librispeech_lng_{number:08d} {line.strip()}\n")


def main(cmd: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="librispeech_prepare.py")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--hours", choices=tuple(TRAINING), default="960")
    parser.add_argument(
        "--data_url", default=DATA_URL, help="for the parts, not the text"
    )
    parser.add_argument("--incomplete", choices=tuple(_BOOLEANS), default="false")
    parser.add_argument("--remove_archive", choices=tuple(_BOOLEANS), default="false")
    parser.add_argument("--lm_text", choices=tuple(_BOOLEANS), default="false")
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args(cmd)
    try:
        prepare(
            args.corpus,
            args.hours,
            args.data_url,
            _BOOLEANS[args.incomplete],
            args.data,
            _BOOLEANS[args.remove_archive],
        )
        if _BOOLEANS[args.lm_text]:
            prepare_lm_text(args.data / "local" / "other_text")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
