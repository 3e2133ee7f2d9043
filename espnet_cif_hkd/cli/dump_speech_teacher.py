"""Store a speech teacher's features for the recordings of Kaldi data folders.

The log has the size of an hour of speech first. A second run adds what is missing.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.dump_teacher import read_config
from espnet_cif_hkd.errors import UserError

# Options of the speech teacher, as in frontend_conf.
_TEACHER = {
    "teacher": str,
    "teacher_revision": str,
    "teacher_type": str,
    "teacher_dim": int,
    "pad": str,
    "teacher_dtype": str,
    "store_coding": str,
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--asr_config",
        "--train_config",
        type=Path,
        dest="config",
        help="training configuration, conf/*.yaml, or config.yaml of an experiment: "
        "fills the stores of all its speech teachers",
    )
    source.add_argument(
        "--teacher", help="a folder, a hub name, or pkg://DISTRIBUTION/FOLDER"
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        nargs="+",
        required=True,
        help="Kaldi data folders that the training reads, such as dump/raw/train_nodev",
    )
    parser.add_argument(
        "--store", type=Path, help="folder to fill (default: the configuration's)"
    )
    parser.add_argument("--fs", help="sampling rate, such as 16k (default: 16000)")
    parser.add_argument(
        "--layer", type=int, nargs="+", help="layer of the teacher, or several"
    )
    for name, kind in _TEACHER.items():
        if name != "teacher":
            parser.add_argument(f"--{name}", type=kind, help="as in frontend_conf")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    parser.add_argument(
        "--num_workers", type=int, default=1, help="processes that compute"
    )
    parser.add_argument(
        "--shard_mib", type=float, default=64, help="about the size of one file"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Fill the stores.

    Raises:
        UserError: an option, a store or a recording is wrong.
    """
    import dataclasses

    from espnet_cif_hkd.distill.speech_filling import (
        SpeechStore,
        fill_speech_stores,
        speech_stores,
    )
    from espnet_cif_hkd.encoder.speech_teacher import teacher_options
    from espnet_cif_hkd.teachers.speech.dump import fill_speech_store

    given: dict[str, Any] = {name: getattr(args, name) for name in _TEACHER}
    if args.layer is not None:
        given["layer"] = args.layer[0] if len(args.layer) == 1 else args.layer
    folder = str(args.store) if args.store else None
    if args.config is None:
        if folder is None:
            raise UserError("--teacher needs --store, the folder to fill")
        options = teacher_options({**given, "fs": args.fs or 16000})
        fill = partial(fill_speech_store, options)
        stores = [SpeechStore("--teacher", folder, fill)]
    else:
        named = [name for name, value in given.items() if value is not None]
        if named:
            raise UserError(
                f"--{named[0]} is an option of --teacher; with a configuration, write "
                "it there"
            )
        config = read_config(args.config)
        if args.fs:
            conf = {**(config.get("frontend_conf") or {}), "fs": args.fs}
            config = {**config, "frontend_conf": conf}
        stores = speech_stores(config)
        if not stores:
            raise UserError(
                f"{args.config}: has no speech teacher: neither 'frontend: "
                "speech_teacher' nor a criterion such as frames"
            )
        if folder and len(stores) != 1:
            labels = ", ".join(store.label for store in stores)
            raise UserError(f"{args.config}: --store fits only one of {labels}")
        if folder:
            stores = [dataclasses.replace(stores[0], folder=folder)]
        if not any(store.folder for store in stores):
            raise UserError(
                f"{args.config}: {stores[0].label}.teacher_store is not set; set it, "
                "or use --store"
            )
    fill_speech_stores(
        stores,
        args.data_dir,
        device=args.device,
        shard_mib=args.shard_mib,
        num_workers=args.num_workers,
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
