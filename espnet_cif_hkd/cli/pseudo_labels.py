"""Add speech without transcripts to a training set, with the text that was recognised.

First recognise the speech with the best recogniser and search that you have; then this
command writes a new data folder of Kaldi's tables for ``--train_set``:

  espnet-cif transcribe speech/ --model exp/asr_x --beam 5 -f json -o labels
  espnet-cif pseudo-labels speech/ --results labels --data_dir data/train \\
      -o data/train_pseudo

Recordings of at most --longest seconds become one utterance each, others one for each
passage between pauses. Utterances without text or with <unk> are left out. --text takes
the text of any other recogniser, such as Whisper, instead of --results, for complete
recordings.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.result_options import add_audio
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.disk import require_writable
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import (
    first_few,
    read_table,
    read_text,
    spk2utt,
    write_table,
)

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.inputs import Recording
    from espnet_cif_hkd.inference.pseudo_labels import Piece

# Names of these utterances begin with it, so that none is that of a transcribed one.
PREFIX = "pseudo-"
# Why pieces are left out, as reported.
_EMPTY, _SHORT, _LONG = "without text", "too short", "too long"
_UNKNOWN, _UNSURE = "with <unk>", "with a low confidence"
_CHANNELS = "with several channels"
_CHARACTERS = "with characters that no transcript has"


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    add_audio(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--results", type=Path, help="folder of `espnet-cif transcribe -f json -o`"
    )
    source.add_argument(
        "--text",
        type=Path,
        help="table of recordings and their texts, such as that of python3 -m "
        "espnet_cif_hkd.cli.whisper_text; written with the characters of --data_dir",
    )
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="the transcribed training set"
    )
    parser.add_argument(
        "-o", "--output_dir", type=Path, required=True, help="data folder to write"
    )
    parser.add_argument(
        "--least_confidence",
        type=float,
        default=0.0,
        help="leave out utterances whose words have a lower mean confidence (0)",
    )
    parser.add_argument(
        "--shortest", type=float, default=0.5, help="least seconds of an utterance"
    )
    parser.add_argument(
        "--longest", type=float, default=20.0, help="most seconds of an utterance"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the data folder.

    Raises:
        UserError: An option or a file is wrong, or no utterance is left.
    """
    from espnet_cif_hkd.inference.inputs import recordings

    _check(args)
    audio = recordings(args.audio)
    kept, left_out, missing = _chosen(args, audio)
    if not kept:
        reasons = f"no recording has a text in {args.text}"
        if args.results is not None:
            reasons = f"run `espnet-cif transcribe … -f json -o {args.results}` first"
        raise UserError(
            f"no utterance is left of {len(audio)} recordings: "
            f"{_counted(left_out) or reasons}"
        )
    if missing:
        log(
            f"warning: {len(missing)} of {len(audio)} recordings have no result in "
            f"{args.results or args.text} or cannot be read "
            f"({first_few(missing, 3)}): they are left out"
        )
    n_transcribed = _write(args, kept)
    hours = sum(piece.end - piece.start for _, piece in kept) / 3600
    n_words = sum(len(piece.text.split()) for _, piece in kept)
    log(
        f"{args.output_dir}: {n_transcribed} utterances of {args.data_dir} and "
        f"{len(kept)} with recognised text, {hours:.2f} hours, {n_words} words"
    )
    if left_out:
        log(f"{args.output_dir}: left out: {_counted(left_out)}")


def _counted(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted(left_out.items()))


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.least_confidence <= 1:
        raise UserError(
            f"--least_confidence {args.least_confidence}: write a number from 0 to 1"
        )
    if not 0 <= args.shortest < args.longest < math.inf:
        raise UserError(
            f"--shortest {args.shortest} --longest {args.longest}: write seconds, "
            "--longest greater than --shortest"
        )
    for name in ("wav.scp", "text", "utt2spk"):
        if not (args.data_dir / name).is_file():
            raise UserError(
                f"--data_dir {args.data_dir} has no {name}: give the training set of "
                "stage 1, such as data/train"
            )
    if args.text is not None and not args.text.is_file():
        raise UserError(f"--text {args.text}: there is no such table")
    if args.text is not None and args.least_confidence:
        raise UserError("--least_confidence: the table of --text has no confidences")
    if args.output_dir.resolve() == args.data_dir.resolve():
        raise UserError(
            f"-o {args.output_dir}: is --data_dir, which would be lost: name another"
        )
    require_writable(args.output_dir)


def _chosen(
    args: argparse.Namespace, audio: "Sequence[Recording]"
) -> "tuple[list[tuple[Recording, Piece]], Counter[str], list[str]]":
    """Return the utterances, how many were left out for which reason, and recordings
    that have no result or cannot be read."""
    import soundfile

    kept: list[tuple[Recording, Piece]] = []
    left_out: Counter[str] = Counter()
    missing = []
    labels = _of_results(args) if args.text is None else _of_table(args)
    for one in progress(audio, len(audio), "pseudo-labels"):
        try:
            info = soundfile.info(one.path)
        except (OSError, RuntimeError):
            missing.append(one.name)
            continue
        pieces = labels(one, info.duration)
        if pieces is None:
            missing.append(one.name)
        elif info.channels > 1:
            left_out[_CHANNELS] += 1
        else:
            for piece in pieces:
                if isinstance(piece, str):
                    left_out[piece] += 1
                elif (why := _fault(args, piece)) is not None:
                    left_out[why] += 1
                else:
                    kept.append((one, piece))
    return kept, left_out, missing


# A recording and its seconds -> its utterances, or why they are left out; None: no
# result.
Labels: TypeAlias = "Callable[[Recording, float], Sequence[Piece | str] | None]"


def _of_results(args: argparse.Namespace) -> "Labels":
    """Return what finds the utterances of ``--results``."""
    from espnet_cif_hkd.inference.pseudo_labels import pieces_of
    from espnet_cif_hkd.inference.writers.verbose_json import recognition_of

    def labels(one: "Recording", seconds: float) -> "Sequence[Piece] | None":
        path = args.results / f"{one.name}.json"
        if not path.is_file():
            return None
        try:
            found = recognition_of(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: is no result of `espnet-cif transcribe -f json`: remove it "
                "and run that command again"
            ) from error
        return list(pieces_of(found, args.longest))

    return labels


def _of_table(args: argparse.Namespace) -> "Labels":
    """Return what finds the utterances of ``--text``."""
    from espnet_cif_hkd.inference.pseudo_labels import Piece, Spelling
    from espnet_cif_hkd.inference.writers.speech import key

    texts = read_text(args.text)
    spelling = Spelling(read_text(args.data_dir / "text").values())

    def labels(one: "Recording", seconds: float) -> "Sequence[Piece | str] | None":
        text = texts.get(key(one.name))
        if text is None:
            return None
        written = spelling(text)
        if written is None:
            return [_CHARACTERS]
        return [Piece(0.0, seconds, True, written, math.nan, False)]

    return labels


def _fault(args: argparse.Namespace, piece: "Piece") -> str | None:
    seconds = piece.end - piece.start
    if not piece.text:
        return _EMPTY
    if piece.unknown:
        return _UNKNOWN
    if seconds < args.shortest:
        return _SHORT
    if seconds > args.longest:
        return _LONG
    if args.least_confidence and not piece.confidence >= args.least_confidence:
        return _UNSURE
    return None


def _write(args: argparse.Namespace, kept: "list[tuple[Recording, Piece]]") -> int:
    """Write the tables of the transcribed set and of ``kept``.

    Returns:
        Number of transcribed utterances.
    """
    from espnet_cif_hkd.inference.writers.speech import key, segment_name

    target, source = args.output_dir, args.data_dir
    wav: dict[str, str] = read_table(source / "wav.scp")
    text: dict[str, str] = dict(read_text(source / "text"))
    utt2spk: dict[str, str] = read_table(source / "utt2spk")
    segments: dict[str, str] | None = None
    if (source / "segments").is_file():
        segments = read_table(source / "segments")
    elif not all(piece.complete for _, piece in kept):
        segments = _complete_recordings(source, wav)
    transcribed = set(wav) | set(text)
    for one, piece in kept:
        recording = name = PREFIX + key(one.name).replace("/", "-")
        if not piece.complete:
            name = segment_name(recording, piece.start, piece.end)
        if recording in transcribed or wav.get(recording, str(one.path)) != str(
            one.path
        ):
            raise UserError(
                f"two recordings are called {recording}, one is {one.path}: rename it"
            )
        wav[recording] = str(one.path)
        text[name], utt2spk[name] = piece.text, name
        if segments is not None:
            segments[name] = f"{recording} {piece.start:.6f} {piece.end:.6f}"
    target.mkdir(parents=True, exist_ok=True)
    if segments is None:
        (target / "segments").unlink(missing_ok=True)
    else:
        write_table(target / "segments", segments)
    tables = {"wav.scp": wav, "text": text, "utt2spk": utt2spk}
    for file, table in {**tables, "spk2utt": spk2utt(utt2spk)}.items():
        write_table(target / file, table)
    return len(text) - len(kept)


def _complete_recordings(source: Path, wav: Mapping[str, str]) -> dict[str, str]:
    """Return segments of a set without ``segments``: its utterances are recordings."""
    import soundfile

    found = {}
    for name, path in wav.items():
        if path.endswith("|"):
            raise UserError(
                f"{source / 'wav.scp'}: {name} is a command, whose length is unknown: "
                "write the audio to a file first"
            )
        info = soundfile.info(path)
        found[name] = f"{name} 0 {info.frames / info.samplerate:.6f}"
    return found


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
