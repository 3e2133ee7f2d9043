"""Fit how the decoder chooses the number of tokens, and write a configuration.

Alpha, or CTC's spikes, say how many tokens fire. With ``model_conf.length_conf`` the
decoder also tries a few more and fewer, and the sentence with the best score is taken:
the mean of its log-probabilities, or their sum and a bonus for each token. This command
finds what has the fewest errors on a set with transcripts, such as ``dev``::

    espnet-cif fit-length --model exp/asr_x --data dump/raw/org/dev
    ./run.sh --stage 12 --inference_tag length
        --inference_args "--asr_train_config exp/asr_x/config_length.yaml"

With ``-o exp/asr_x/config.yaml`` all uses of the model choose, and packed models, too.
Run it in the folder to which the files of ``wav.scp`` are relative.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.result_options import device_of
from espnet_cif_hkd.cli.spoken_data import read_spoken, samples_of
from espnet_cif_hkd.cli.text_errors import TextErrors
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.model_files import model_files
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.disk import require_writable
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import evenly

_SLACK = 3
_MEAN = "mean"


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="folder of an experiment, or a checkpoint in it"
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--data", type=Path, help="folder with wav.scp and text: fit")
    given.add_argument(
        "--bonus", type=_bonus, help="write this bonus, or mean, without a fit"
    )
    parser.add_argument(
        "--utterances", type=int, default=500, help="use so many, evenly chosen"
    )
    parser.add_argument(
        "--slack",
        type=int,
        default=_SLACK,
        help=f"tokens more and fewer to try (default: {_SLACK})",
    )
    parser.add_argument(
        "--unit",
        choices=("word", "char"),
        help="whose errors count (default: word; char for transcripts without spaces)",
    )
    parser.add_argument(
        "--one_pass", action="store_true", help="fit it to the one-pass decoder"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="default: config_length.yaml beside the model",
    )
    parser.add_argument("--device", default="cpu")
    return parser


def _bonus(word: str) -> float | str:
    if word == _MEAN:
        return word
    try:
        return float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word}: give a number or mean") from None


def run(args: argparse.Namespace) -> None:
    """Decode, fit, write the file.

    Raises:
        UserError: The data or the model are missing or do not fit.
    """
    from espnet_cif_hkd.plugin.registration import CIF_DECODERS
    from espnet_cif_hkd.search.lengths import build_length_search

    logging.getLogger().setLevel(logging.WARNING)  # ESPnet reports every utterance
    bonus = None if args.bonus == _MEAN else args.bonus
    chosen = {"slack": args.slack, "bonus": bonus}
    build_length_search(chosen)  # checks both
    if args.utterances < 1:
        raise UserError(f"--utterances {args.utterances}: write at least 1")
    config = Path(model_files(args.model)["asr_train_config"])
    output = args.output or config.with_name("config_length.yaml")
    require_writable(output.parent)
    conf: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
    if conf.get("decoder") not in CIF_DECODERS:
        raise UserError(
            f"{config}: decoder: {conf.get('decoder')}: length_conf is for CIF, whose "
            "decoders are " + ", ".join(CIF_DECODERS)
        )
    if args.data is not None:
        chosen["bonus"] = _fitted(args)
    conf["model_conf"] = {**(conf.get("model_conf") or {}), "length_conf": chosen}
    text = yaml.safe_dump(conf, sort_keys=False, allow_unicode=True)
    write_text(output, text)
    log(f"fit-length: wrote {output}")


def _fitted(args: argparse.Namespace) -> float | None:
    """Decode the set and return the bonus with the fewest errors; None: the mean."""
    recordings, texts = read_spoken(args.data)
    if not texts:
        raise UserError(f"{args.data} has no text: a fit needs transcripts")
    from espnet_cif_hkd.inference.length_fitting import CandidateLists, fit_bonus
    from espnet_cif_hkd.inference.recognizer import Recognizer

    options: dict[str, Any] = {"one_pass": True} if args.one_pass else {}
    recognizer = Recognizer(args.model, device=device_of(args.device), **options)
    candidates = CandidateLists(recognizer, args.slack)
    keys = evenly(list(recordings), args.utterances)
    counted = TextErrors(args.data / "text", keys, args.unit)
    lists = {
        key: candidates(samples_of(recognizer, key, recordings[key]))
        for key in progress(keys, len(keys), "fit-length")
    }
    found = fit_bonus(lists, counted)
    before, after, held_out, least = (
        counted.rate(n)
        for n in (found.before, found.errors, found.held_out, found.least)
    )
    by = f"a bonus of {found.bonus} for each token"
    if found.bonus is None:
        by = "the mean of log-probabilities"
    log(
        f"fit-length: {args.data}, {len(keys)} utterances: {counted.unit} errors "
        f"{before:.2f} -> {after:.2f} % with {by} ({held_out:.2f} % of utterances left "
        f"out of the fit; the best of all tried numbers of tokens: {least:.2f} %)"
    )
    if found.held_out >= found.before:
        raise UserError(
            "the choice does not help on these utterances: nothing is written; use "
            "the model without it, or give more utterances, or --bonus"
        )
    return found.bonus


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
