"""Align English speech with the phones and states of its transcripts, by pocketsphinx.

Writes phone.ctm and state.ctm, in seconds, and state_tokens.txt, the token list of the
states. Pronunciations are the first ones of the lexicon. A further run continues.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "--data_dir",
        type=Path,
        nargs="+",
        required=True,
        help="Kaldi data folders that the training reads, such as dump/raw/train_nodev",
    )
    parser.add_argument(
        "--lexicon", type=Path, required=True, help="lexicon.txt of make_lexicon"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--fs", default="16k", help="sampling rate of the data (default: 16k)"
    )
    parser.add_argument("--nj", type=int, default=1, help="number of processes")
    parser.add_argument(
        "--max_missing",
        type=float,
        default=10.0,
        help="refuse if more percent of the utterances cannot be aligned (default: 10)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the alignments.

    Raises:
        UserError: an option or a file is wrong, or too many utterances cannot be
            aligned.
    """
    from espnet_cif_hkd.recipe.paths import sampling_rate
    from espnet_cif_hkd.teachers.lm.aligning import Speech, align_folders

    if not 0 <= args.max_missing <= 100:
        raise UserError(f"--max_missing {args.max_missing:g}: write 0 to 100 percent")
    if args.nj < 1:
        raise UserError(f"--nj {args.nj}: write a number of processes from 1")
    speech = Speech(tuple(args.data_dir), sampling_rate(args.fs), args.lexicon)
    align_folders(speech, args.out_dir, args.nj, args.max_missing)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
