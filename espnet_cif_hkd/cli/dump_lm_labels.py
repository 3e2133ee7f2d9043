"""Store a language model's most probable labels for each unit of some texts.

The log has the perplexity of the LM and the accuracy of its labels on each text first;
an LM that is worse than unigram probabilities on one of them is refused. A second run
adds what is missing.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.dump_teacher import TOKEN_OPTIONS
from espnet_cif_hkd.errors import UserError

_UNIT = ("unit", "unit_token_list", "unit_bpemodel", "lexicon", "unknown_words")
_LM = ("lm", "lm_type", "lm_revision", "temperature", "top_k")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "--lm",
        help="a folder of ESPnet's lm_train; a folder, a hub name or "
        "pkg://DISTRIBUTION/FOLDER with a Hugging Face model; for unigram a file of "
        "counts, which is made if it does not exist",
    )
    parser.add_argument(
        "--lm_type",
        help="espnet (default), hf_causal, hf_characters, hf_masked, uniform, unigram",
    )
    parser.add_argument("--lm_revision", help="commit or tag of a hub name")
    parser.add_argument(
        "--lm_conf",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="further option of the LM, such as case=lower; may be repeated",
    )
    parser.add_argument(
        "--temperature", type=float, help="divisor of the logits (default: 3)"
    )
    parser.add_argument("--top_k", type=int, help="labels of each unit (default: 8)")
    parser.add_argument(
        "--store", type=Path, required=True, help="folder to fill, label_store in YAML"
    )
    parser.add_argument(
        "--text",
        type=Path,
        nargs="+",
        required=True,
        help="Kaldi text files, or data folders that hold one, of training and then of "
        "validation; the unigram of the check counts the first",
    )
    parser.add_argument(
        "--count_text",
        type=Path,
        nargs="+",
        help="texts whose units are counted for unigram (default: those of --text)",
    )
    parser.add_argument(
        "--unit", default="token", help="token (default), char, bpe, word or lexicon"
    )
    parser.add_argument("--unit_token_list", help="tokens of the unit, one a line")
    parser.add_argument("--unit_bpemodel", help="SentencePiece model of unit bpe")
    parser.add_argument("--lexicon", help="Kaldi lexicon.txt of unit lexicon")
    parser.add_argument(
        "--unknown_words", help="words that the lexicon has not: error (default) or unk"
    )
    parser.add_argument(
        "--token_list",
        type=Path,
        required=True,
        help="tokens.txt of the recogniser, which looks the labels up by its tokens",
    )
    parser.add_argument(
        "--token_type",
        required=True,
        help="char, bpe, word or hugging_face, as in the training of the recogniser",
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


def run(args: argparse.Namespace) -> None:
    """Fill the store.

    Raises:
        UserError: an option, the LM, a text or the store is wrong.
    """
    from espnet_cif_hkd.distill.filling import preprocessor_options, read_sentences
    from espnet_cif_hkd.teachers.lm.dump import fill_labels
    from espnet_cif_hkd.teachers.lm.units import build_unit

    if args.unit == "aligned":
        raise UserError(
            "--unit aligned: a text has no labels of an alignment; store them by "
            "python3 -m espnet_cif_hkd.cli.dump_teacher --asr_config, whose level "
            "names the alignment"
        )
    options = preprocessor_options({n: getattr(args, n) for n in TOKEN_OPTIONS})
    texts, counted = _files(args.text), _files(args.count_text or args.text)
    conf = {name: getattr(args, name) for name in (*_UNIT, *_LM)}
    conf = {name: value for name, value in conf.items() if value is not None}
    if args.lm_conf:
        conf["lm_conf"] = _pairs(args.lm_conf)
    unit = build_unit(conf, options["token_list"], options["token_type"])
    unit.check(read_sentences(texts))

    import torch
    from espnet2.train.preprocessor import CommonPreprocessor

    preprocessor = CommonPreprocessor(train=False, **options)

    def sentences(paths: Sequence[Path]) -> Callable[[], Iterator[Sequence[int]]]:
        def read() -> Iterator[Sequence[int]]:
            for text in read_sentences(paths):
                ids = preprocessor("text", {"text": text})["text"].tolist()
                yield unit.sequence(ids)

        return read

    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    fill_labels(
        conf,
        unit.token_list,
        sentences(texts),
        str(args.store),
        torch.device(device),
        int(args.shard_mib * 2**20),
        sentences(counted),
        {str(text): sentences([text]) for text in texts},
    )


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return text files; a data folder has its file ``text``.

    Raises:
        UserError: A file does not exist.
    """
    files = [path / "text" if path.is_dir() else path for path in paths]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: this text file does not exist")
    return files


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    """Return the options of ``NAME=VALUE`` words; values are YAML.

    Raises:
        UserError: A word has another form.
    """
    import yaml

    pairs: dict[str, Any] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"--lm_conf {word}: write NAME=VALUE, such as case=lower")
        try:
            pairs[name] = yaml.safe_load(value)
        except yaml.YAMLError as e:
            raise UserError(f"--lm_conf {word}: {value!r} is no YAML value") from e
    return pairs


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
