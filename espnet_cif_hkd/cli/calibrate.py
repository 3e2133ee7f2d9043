"""Fit a model's times and confidences: ``python3 -m espnet_cif_hkd.cli.calibrate``.

Decodes speech with transcripts that the model was not trained on, such as ``dev``, and
writes ``calibration.json`` beside the model, where recognition finds it. Decode as in
use: with another beam or language model, other tokens are wrong. Without transcripts,
the times are fitted only.

Run it in the folder to which the files of ``wav.scp`` are relative.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.result_options import device_of
from espnet_cif_hkd.cli.search_options import add_search, check_search, search_of
from espnet_cif_hkd.cli.spoken_data import read_spoken, samples_of
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference import fitting, gaps
from espnet_cif_hkd.inference.assemble import silent_tokens, text_pieces
from espnet_cif_hkd.inference.calibration import (
    Calibration,
    read_calibration,
    write_calibration,
)
from espnet_cif_hkd.inference.confidence import (
    confidences,
    features,
    log_odds,
    sigmoid,
)
from espnet_cif_hkd.inference.evidence import Floats
from espnet_cif_hkd.io.digest import sha256
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import evenly

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.recognizer import Recognizer

_FEWEST_TOKENS, _FEWEST_ERRORS, _FEWEST_UTTERANCES = 200, 20, 10
_FOLDS = 5
_STREAMS = 100  # utterances at most


@dataclass
class Decoded:
    """What is needed of one utterance.

    Attributes:
        features: ``(U, F)``.
        uncalibrated: Confidences before, ``(U,)``.
        right: Whether each token is right, ``(U,)``; None: there is no transcript.
        gaps: Features of each gap, ``(U + 1, G)``; None: unknown.
        missing: Whether a token is missing in each gap, ``(U + 1,)``; None: there is no
            transcript.
        margins: None: the outer peaks say nothing.
    """

    features: Floats
    uncalibrated: Floats
    right: fitting.Bools | None
    gaps: Floats | None
    missing: fitting.Bools | None
    margins: fitting.Margins | None


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="folder of an experiment, or a checkpoint in it"
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with wav.scp, and text to calibrate confidences",
    )
    parser.add_argument(
        "--utterances", type=int, default=500, help="use so many, evenly chosen"
    )
    add_search(parser)
    parser.add_argument("--ctc_weight", type=float, help="with --beam")
    parser.add_argument("--lm_train_config", help="with --beam")
    parser.add_argument("--lm_file", help="with --beam")
    parser.add_argument("--lm_weight", type=float, help="with --beam")
    parser.add_argument("--device", default="cpu")
    return parser


def run(args: argparse.Namespace) -> None:
    """Decode, fit, write the file.

    Raises:
        UserError: The data or the model are missing or do not fit.
    """
    logging.getLogger().setLevel(logging.WARNING)  # ESPnet reports every utterance
    wanted = ("ctc_weight", "lm_train_config", "lm_file", "lm_weight")
    search = {
        name: getattr(args, name) for name in wanted if getattr(args, name) is not None
    }
    check_search(args)
    if args.beam is None and search:
        raise UserError(f"--{next(iter(search))} needs --beam")
    if args.utterances < 1:
        raise UserError(f"--utterances {args.utterances}: write at least 1")
    recordings, texts = read_spoken(args.data)
    search |= search_of(args)
    from espnet_cif_hkd.inference.recognizer import Recognizer

    recognizer = Recognizer(
        args.model,
        device=device_of(args.device),
        calibrated=False,  # what was fitted before must not be used
        **search,
    )
    chosen = evenly(list(recordings), args.utterances)
    decoded = [
        one
        for key in progress(chosen, len(chosen), "calibrate")
        for one in _decoded(recognizer, key, recordings[key], texts.get(key))
    ]
    found = fit(decoded)
    streamed = [(key, recordings[key]) for key in evenly(chosen, _STREAMS)]
    found = _with_stream_times(found, recognizer, streamed)
    report: dict[str, Any] = {
        "data": args.data.name,
        "search": {**search, **recognizer.search},
    }
    names = [name for name in ("lm_train_config", "lm_file") if name in search]
    for name in names:  # no paths of this machine
        report["search"][name] = Path(str(search[name])).name
    found = replace(
        found,
        model=sha256(recognizer.model_file),
        report={**report, **found.report},
    )
    if not texts:
        found = _with_kept_weights(found, recognizer.model_file, args.data)
    try:
        path = write_calibration(recognizer.model_file, found)
    except OSError as error:
        raise UserError(
            f"{recognizer.model_file.parent}: calibration.json cannot be written: "
            f"{error}"
        ) from error
    log(f"calibrate: {json.dumps(found.report)}")
    log(f"calibrate: wrote {path}")


def _with_kept_weights(found: Calibration, model_file: Path, data: Path) -> Calibration:
    """Take over the confidences of an earlier calibration of this model."""
    try:
        old = read_calibration(model_file)
    except UserError:  # damaged, or of another model
        old = Calibration()
    note = f"calibrate: confidences were not calibrated: {data} has no text"
    if old.weights is None and old.gaps is None:
        log(note)
        return found
    log(f"{note}; those of the calibration before are kept")
    report = {**old.report, "timing": found.report}
    return replace(old, timing=found.timing, report=report)


def _with_stream_times(
    found: Calibration, recognizer: "Recognizer", chosen: Sequence[tuple[str, str]]
) -> Calibration:
    """Fit how far times of streams are from those of complete utterances.

    Nothing changes for a model that does not stream, and for too few equal tokens.
    """
    try:
        recognizer.stream()
    except UserError:
        return found
    recognizer.results.calibration = found
    offline: list[tuple[float, float]] = []
    streamed: list[tuple[float, float]] = []
    for key, entry in progress(chosen, len(chosen), "calibrate streams"):
        samples = samples_of(recognizer, key, entry)
        whole, stream = recognizer.recognise(samples), recognizer.stream()
        stream.accept(samples)
        parts = stream.finish().tokens
        if [one.id for one in parts] == [one.id for one in whole.tokens]:
            for one, other in zip(whole.tokens, parts, strict=True):
                if not one.text.isspace():
                    offline.append((one.start, one.end))
                    streamed.append((other.start, other.end))
    if len(offline) < _FEWEST_TOKENS:
        log(
            f"calibrate: times of streams stay as they are: {len(offline)} tokens "
            f"equal those of complete utterances ({_FEWEST_TOKENS} are needed)"
        )
        return found
    start, end = fitting.fit_stream(offline, streamed)
    timing = replace(found.timing, stream_start=start, stream_end=end)
    report = {**found.report, "stream": {"tokens": len(offline)}}
    return replace(found, timing=timing, report=report)


def _decoded(
    recognizer: "Recognizer", key: str, entry: str, text: str | None
) -> Iterator[Decoded]:
    """Decode one utterance; nothing if the result has no tokens."""
    rate, samples = recognizer.sampling_rate, samples_of(recognizer, key, entry)
    frames = recognizer.frames(samples)
    if frames is None:
        return
    results, speech2text = recognizer.results, recognizer.speech2text
    [[found, *_]] = speech2text.hypotheses([frames])
    symbols = found.symbols
    if not found.ids:
        return
    evidence = results.evidence(frames, found.ids, found.logp)
    pieces = text_pieces(symbols, found.text, results.text)
    right = missing = None
    if text is not None:
        reference = speech2text.tokenizer.text2tokens(text)
        right, missing = fitting.right_tokens(symbols, reference)
    yield Decoded(
        features(evidence),
        np.array(confidences(evidence), np.float64),
        right,
        gaps.features(evidence),
        missing,
        fitting.margins(evidence, silent_tokens(pieces, symbols), samples, rate),
    )


def fit(decoded: Sequence[Decoded]) -> Calibration:
    """Fit everything that the utterances suffice for; the rest keeps its default.

    The report has the quality of confidences before and after. After means: of
    utterances that were left out of the fit, five times a fifth.

    Raises:
        UserError: There are no tokens, or nothing to fit.
    """
    if not decoded:
        raise UserError("no utterance has a token: check the model and the data")
    values = np.concatenate([one.features for one in decoded])
    before = np.concatenate([one.uncalibrated for one in decoded])
    report: dict[str, Any] = {"utterances": len(decoded), "tokens": len(values)}
    known = [one.margins for one in decoded if one.margins is not None]
    fitted = fitting.fit_timing(known) if len(known) >= _FEWEST_UTTERANCES else None
    if fitted is None:
        log(
            f"calibrate: times keep their defaults: {len(known)} utterances have sound "
            f"and silence ({_FEWEST_UTTERANCES} are needed), or their peaks are not in "
            "the sound"
        )
    timing, weights = fitted or Calibration().timing, None
    judged = [one.right for one in decoded if one.right is not None]
    if not judged:
        if fitted is None:
            raise UserError(
                "nothing can be fitted: times need more utterances with sound and "
                "silence, confidences a text"
            )
        return Calibration("", timing, report=report)
    right = np.concatenate(judged)
    report["right"] = round(float(right.mean()), 4)
    n_wrong = min(int(right.sum()), int((~right).sum()))
    if len(right) >= _FEWEST_TOKENS and n_wrong >= _FEWEST_ERRORS:
        weights = fitting.fit_weights(values, right)
        owners = np.repeat(np.arange(len(judged)), [len(one) for one in judged])
        after = np.empty(len(right))
        for fold in range(_FOLDS):
            held = owners % _FOLDS == fold
            fold_weights = fitting.fit_weights(values[~held], right[~held])
            after[held] = sigmoid(log_odds(fold_weights, values[held]))
        report["before"] = fitting.quality(before, right)
        report["after"] = fitting.quality(after, right)
    else:
        log(
            f"calibrate: confidences stay uncalibrated: {len(right)} tokens, "
            f"{n_wrong} of the rarer kind; {_FEWEST_TOKENS} and {_FEWEST_ERRORS} are "
            "needed"
        )
    of_gaps, limit = _fit_gaps(decoded, report)
    return Calibration("", timing, weights, of_gaps, limit, report)


def _fit_gaps(
    decoded: Sequence[Decoded], report: dict[str, Any]
) -> tuple[tuple[float, ...] | None, float]:
    """Weights and limit of warnings; None and 0 for too few missing tokens.

    The report has shares of the missing tokens: with a warning in their gap, and in
    theirs or one beside it, because the place of a missing token is not certain.
    """
    known = [
        (one.gaps, one.missing)
        for one in decoded
        if one.gaps is not None and one.missing is not None
    ]
    if sum(int(missing.sum()) for _, missing in known) < _FEWEST_ERRORS:
        return None, 0.0
    values, missing = (np.concatenate(parts) for parts in zip(*known))
    near = np.concatenate([fitting.widened(one) for _, one in known])
    weights = fitting.fit_weights(values, missing)
    score = log_odds(weights, values)
    limit = round(fitting.fit_limit(score, near), 4)
    ends = np.cumsum([len(one) for _, one in known])[:-1]
    warned = [fitting.widened(one) for one in np.split(score > limit, ends)]
    report["missing_found"] = round(float((score > limit)[missing].mean()), 4)
    report["missing_found_near"] = round(
        float(np.concatenate(warned)[missing].mean()), 4
    )
    return weights, limit


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
