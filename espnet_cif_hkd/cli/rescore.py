"""Choose among the best hypotheses with a language model of Hugging Face.

``asr_inference --nbest N`` leaves the N best hypotheses of each utterance. This command
adds to the score of the search the log-probability of a causal language model, times a
weight, and a bonus for each token, and writes the hypotheses that are best then. The
folder it writes is like that of stage 12: stage 13 scores it.

Weight and bonus are given, or fitted to a set with transcripts, such as ``dev``::

    espnet-cif rescore exp/asr/decode_nbest/test --lm LM -o exp/asr/decode_rescored/test
        --fit exp/asr/decode_nbest/org/dev --fit_text dump/raw/org/dev/text

The set of --valid_set, here ``dev``, is decoded into ``org/``.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.result_options import device_of
from espnet_cif_hkd.cli.text_errors import TextErrors
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.nbest import (
    FILES,
    Fitted,
    NBest,
    choose,
    fit,
    read_nbest,
    require_finite,
)
from espnet_cif_hkd.inference.rescoring import scorer_of
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.disk import require_writable
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import byte_order
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.teachers.text.spelling import CASES

_SCORES = "lm_scores.json"
_SAVE_EVERY = 60.0  # seconds


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__.splitlines()[0])
    parser.add_argument(
        "folder", type=Path, help="of a set that is decoded with --nbest"
    )
    parser.add_argument(
        "--lm",
        required=True,
        help="folder, pkg://DISTRIBUTION/FOLDER, or NAME@REVISION of the hub",
    )
    parser.add_argument(
        "--case",
        default="auto",
        choices=CASES,
        help="case of the text for the LM; auto: lower if the text is in capitals",
    )
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--weight", type=float, help="of the LM")
    parser.add_argument("--bonus", type=float, help="of each token (default: 0)")
    parser.add_argument(
        "--fit", type=Path, help="fit both to this decoded set, instead of --weight"
    )
    parser.add_argument("--fit_text", type=Path, help="transcripts of --fit")
    parser.add_argument(
        "--text", type=Path, help="transcripts of the set: error rates are reported"
    )
    parser.add_argument(
        "--unit",
        choices=("word", "char"),
        help="whose errors count (default: word; char for transcripts without spaces)",
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda[:N]")
    return parser


def _check(args: argparse.Namespace) -> None:
    if (args.weight is None) == (args.fit is None):
        raise UserError("give either --weight, or --fit and --fit_text")
    if (args.fit is None) != (args.fit_text is None):
        raise UserError("--fit and --fit_text belong together: give both")
    if args.fit is not None and args.bonus is not None:
        raise UserError("--bonus is fitted: leave it out, or give --weight, too")
    if args.weight is not None:
        require_finite(weight=args.weight, bonus=args.bonus or 0.0)
    if (args.output_dir / "logdir").exists():
        raise UserError(
            f"-o {args.output_dir}: holds the result of a decoding; choose a new folder"
        )
    for folder in filter(None, (args.folder, args.fit)):
        stamps.require(folder, 12, ["text"])


def run(args: argparse.Namespace) -> None:
    """Score, fit, choose, write.

    Raises:
        UserError: A folder or the LM is missing or does not fit.
    """
    _check(args)
    nbest = read_nbest(args.folder)
    sets = [nbest]
    counted = None
    if args.fit is not None:
        sets.append(read_nbest(args.fit))
        counted = TextErrors(args.fit_text, sets[1], args.unit)
    errors = None if args.text is None else TextErrors(args.text, nbest, args.unit)
    require_writable(args.output_dir)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    others = _lm_scores(args, sets)
    weight, bonus = args.weight, args.bonus or 0.0
    if counted is not None:
        found = fit(sets[1], others, counted)
        weight, bonus = found.weight, found.bonus
        log(f"rescore: {args.fit}: weight {weight}, bonus {bonus} for each token")
        _report(args.fit, counted, found)
    chosen = choose(nbest, others, weight, bonus)
    rows = sorted(chosen.items(), key=lambda item: byte_order(item[0]))
    for name in FILES:
        lines = (
            f"{key} {total if name == 'score' else getattr(one, name)}\n"
            for key, (one, total) in rows
        )
        write_text(args.output_dir / name, "".join(lines))
    facts = {"lm": Path(args.lm).name, "weight": weight, "bonus": bonus}
    write_text(args.output_dir / "rescore.json", json.dumps(facts) + "\n")
    changed = sum(one is not nbest[key][0] for key, (one, _) in chosen.items())
    log(f"rescore: {args.output_dir}: {changed} of {len(chosen)} utterances changed")
    if errors is not None:
        _report(args.folder, errors, fit(nbest, others, errors, [weight], [bonus]))


def _report(folder: Path, counted: TextErrors, found: Fitted) -> None:
    """Log error rates: before, after, and of the best hypothesis of each list."""
    counts = found.first, found.errors, found.least
    before, after, least = map(counted.rate, counts)
    log(
        f"rescore: {folder}: {counted.unit} errors {before:.2f} -> {after:.2f} % (the "
        f"best of each list: {least:.2f} %)"
    )


def _lm_scores(args: argparse.Namespace, sets: Sequence[NBest]) -> dict[str, float]:
    """Score all texts; those that an earlier run has scored are read."""
    device = device_of(args.device)
    scorer = scorer_of(args.lm, device, args.case)
    lists = [[one.text for one in some] for nbest in sets for some in nbest.values()]
    scorer.settle_case([text for some in lists for text in some])
    return score_lists(scorer, scorer.identity(), lists, args.output_dir / _SCORES)


def score_lists(
    scorer: Callable[[Sequence[str]], Sequence[float]],
    identity: str,
    lists: Sequence[Sequence[str]],
    path: Path,
) -> dict[str, float]:
    """Return the score of each text in some lists.

    Args:
        scorer: Scores texts.
        identity: Of the scorer; scores of another are not used.
        lists: Texts of each utterance.
        path: File that keeps the scores; it is written while the command runs.

    Returns:
        Scores of these texts and of those that the file had.
    """
    known = _read(path, identity)
    saved = time.monotonic()
    for texts in progress(lists, len(lists), "rescore"):
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if not new:
            continue
        known.update(zip(new, scorer(new), strict=True))
        if time.monotonic() - saved > _SAVE_EVERY:
            _save(path, identity, known)
            saved = time.monotonic()
    _save(path, identity, known)
    return known


def _read(path: Path, identity: str) -> dict[str, float]:
    """Return the scores in a file; none if it is damaged or of another scorer."""
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["scorer"] != identity:
            return {}
        return {str(text): float(score) for text, score in kept["scores"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        log(f"rescore: {path} is damaged, all texts are scored again")
        return {}


def _save(path: Path, identity: str, scores: dict[str, float]) -> None:
    content = {"scorer": identity, "scores": scores}
    write_text(path, json.dumps(content, ensure_ascii=False))


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
