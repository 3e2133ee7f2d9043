"""Store a teacher's vectors for all sentences of some transcripts.

A second run adds what is missing.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.errors import UserError, one_line

TOKEN_OPTIONS = (
    *("token_list", "token_type", "bpemodel"),
    *("cleaner", "g2p", "non_linguistic_symbols"),
)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--asr_config", type=Path, help="training configuration, conf/*.yaml"
    )
    source.add_argument(
        "--train_config",
        type=Path,
        help="config.yaml of an experiment; it also gives the token options",
    )
    parser.add_argument(
        "--text",
        type=Path,
        nargs="+",
        required=True,
        help="Kaldi text files, that of the training first",
    )
    parser.add_argument(
        "--store", type=Path, help="folder to fill (default: the configuration's)"
    )
    parser.add_argument("--token_list", type=Path, help="tokens.txt")
    parser.add_argument(
        "--token_type", help="char, bpe, word or hugging_face, as in training"
    )
    parser.add_argument("--bpemodel")
    parser.add_argument("--cleaner")
    parser.add_argument("--g2p")
    parser.add_argument("--non_linguistic_symbols")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    parser.add_argument(
        "--shard_mib", type=float, default=64, help="about the size of one file"
    )
    return parser


def read_config(path: Path) -> dict[str, Any]:
    """Return the options of a YAML file.

    Raises:
        UserError: the file cannot be read or is not a mapping.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as f:
            config = yaml.safe_load(f)
    except (OSError, yaml.YAMLError) as e:
        raise UserError(f"{path}: cannot be read ({one_line(e)})") from e
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no options")
    return config


def run(args: argparse.Namespace) -> None:
    """Fill the stores of the configuration.

    Raises:
        UserError: an option or a file is wrong.
    """
    from espnet_cif_hkd.distill.filling import fill_stores

    path = args.train_config or args.asr_config
    config = read_config(path)
    # Options that are not given are read from the config.yaml of the experiment.
    tokens = {name: getattr(args, name) for name in TOKEN_OPTIONS}
    for name in TOKEN_OPTIONS if args.train_config else ():
        if tokens[name] is None:
            tokens[name] = config.get(name)
    folder = str(args.store) if args.store else None
    fill_stores(
        config, str(path), tokens, args.text, folder, args.device, args.shard_mib
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
