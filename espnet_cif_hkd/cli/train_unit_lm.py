"""Train a language model of any unit by ESPnet's lm_train, for dump_lm_labels.

The text of the units is in OUT_DIR/text, the model is OUT_DIR/valid.loss.ave.pth. A
second run continues an interrupted training; it does nothing if text, unit and options
are the same.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.dump_teacher import TOKEN_OPTIONS
from espnet_cif_hkd.errors import UserError

if TYPE_CHECKING:
    from espnet_cif_hkd.teachers.lm.units import AbsUnit

UNIT_OPTIONS = (
    *("unit", "unit_token_list", "unit_bpemodel", "lexicon", "unknown_words"),
)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "--text",
        type=Path,
        nargs="+",
        required=True,
        help="Kaldi text files: transcripts and, if there is one, further text",
    )
    parser.add_argument(
        "--valid_text",
        type=Path,
        nargs="+",
        required=True,
        help="Kaldi text files that choose the best epochs",
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--lm_config", default="", help="YAML file for lm_train")
    parser.add_argument("--lm_args", default="", help="further options of lm_train")
    parser.add_argument("--ngpu", type=int, default=0, help="number of GPUs")
    parser.add_argument("--unit", required=True, help="token, char, bpe, word, lexicon")
    parser.add_argument("--unit_token_list", help="tokens of the unit, one a line")
    parser.add_argument("--unit_bpemodel", help="SentencePiece model of unit bpe")
    parser.add_argument("--lexicon", help="Kaldi lexicon.txt of unit lexicon")
    parser.add_argument("--unknown_words", help="error (default) or unk")
    parser.add_argument(
        "--token_list",
        help="tokens.txt of the recogniser, whose tokens are converted to units as in "
        "its training; needed for unit token",
    )
    parser.add_argument("--token_type", help="char, bpe, word or hugging_face")
    parser.add_argument("--bpemodel")
    parser.add_argument("--cleaner")
    parser.add_argument("--g2p")
    parser.add_argument("--non_linguistic_symbols")
    return parser


def unit_sentences(
    unit: "AbsUnit", tokens: Mapping[str, Any] | None, paths: Sequence[Path]
) -> Iterator[list[str]]:
    """Yield the labels of each sentence of Kaldi text files.

    Args:
        unit: the unit.
        tokens: options of ESPnet's preprocessor, whose tokens become units as in a
            training of the recogniser; None: the text becomes units.
        paths: the files.

    Raises:
        UserError: a file cannot be read, or a word has no pronunciation.
    """
    from espnet_cif_hkd.distill.filling import read_sentences
    from espnet_cif_hkd.io.tables import single_spaced

    encode = unit.encode
    if tokens is not None:
        from espnet2.train.preprocessor import CommonPreprocessor

        preprocessor = CommonPreprocessor(train=False, **tokens)

        def encode(text: str) -> list[int]:
            ids = preprocessor("text", {"text": text})["text"].tolist()
            return unit.sequence(ids)

    for text in read_sentences(paths):
        yield [unit.token_list[n] for n in encode(single_spaced(text))]


def run(args: argparse.Namespace) -> None:
    """Train the language model.

    Raises:
        UserError: an option, a text or the unit is wrong.
    """
    from espnet_cif_hkd.distill.filling import preprocessor_options, read_sentences
    from espnet_cif_hkd.io.tables import single_spaced
    from espnet_cif_hkd.recipe.checks.stamps import Fingerprint
    from espnet_cif_hkd.recipe.unit_lm import UnitLM, train_unit_lm
    from espnet_cif_hkd.teachers.lm.units import build_unit

    if args.unit == "aligned":
        raise UserError(
            "--unit aligned: a text has no labels of an alignment; run local/levels.sh "
            "of a recipe, or write the labels as a text and use --unit word"
        )
    for path in (*args.text, *args.valid_text):
        if not path.is_file():
            raise UserError(f"{path}: this text file does not exist")
    tokens = None
    if args.token_list:
        tokens = preprocessor_options({n: getattr(args, n) for n in TOKEN_OPTIONS})
    elif args.unit == "token":
        raise UserError("--unit token needs --token_list and --token_type")
    conf = {name: getattr(args, name) for name in UNIT_OPTIONS}
    if tokens is None:
        unit = build_unit(conf, ())
    else:
        unit = build_unit(conf, tokens["token_list"], tokens["token_type"])
    unit.check(map(single_spaced, read_sentences([*args.text, *args.valid_text])))
    mark = Fingerprint().words(unit.describe(), tokens).files(*args.text)
    lm = UnitLM(args.out_dir, unit.token_list, args.lm_config, args.lm_args, args.ngpu)
    train_unit_lm(
        lm,
        partial(unit_sentences, unit, tokens, args.text),
        partial(unit_sentences, unit, tokens, args.valid_text),
        mark.words("valid").files(*args.valid_text),
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
