"""Recognise audio files: text, subtitles, times and confidences.

Without -o the result is printed; everything else is on the standard error. With -o the
files are named like the audio; those that are complete are skipped, so an interrupted
command continues. A file that cannot be read is reported, the others are recognised,
and the exit code is 1.

  espnet-cif transcribe talk.wav --model exp/asr_x
  espnet-cif transcribe talks/ --model exp/asr_x -f srt,json -o subtitles

The folder of an exported model needs neither torch nor ESPnet.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from espnet_cif_hkd.cli.command import command_parser
from espnet_cif_hkd.cli.result_options import (
    Printer,
    add_options,
    device_of,
    folder_of,
    guarded,
    outputs_of,
    quiet_libraries,
    remaining,
)
from espnet_cif_hkd.cli.search_options import (
    add_search,
    check_search,
    one_pass_of,
    search_of,
)
from espnet_cif_hkd.errors import UserError

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.batch import LongWork, Progress, Work
    from espnet_cif_hkd.inference.recognition import Recognition
    from espnet_cif_hkd.inference.results_folder import ResultsFolder

# Seconds of audio that a stream takes at once.
_PIECE = 0.32
# Options that change results.
_SEARCH = ("beam", "ctc_weight", "stream", "long_above")
# Options of a search that exported models do not have.
_NOT_EXPORTED = ("beam", "ctc_weight", "rescore_lm")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    add_options(parser)
    add_search(parser).add_argument(
        "--stream",
        action="store_true",
        help="recognise while reading; shows partial results on a terminal",
    )
    parser.add_argument(
        "--ctc_weight", type=float, help="of CTC in the beam search (default: 0.3)"
    )
    parser.add_argument(
        "--rescore_lm",
        metavar="LM",
        help="causal LM of Hugging Face that chooses among the hypotheses of --beam: "
        "a folder, pkg://DISTRIBUTION/FOLDER, or NAME@REVISION of the hub",
    )
    parser.add_argument(
        "--rescore_weight", type=float, help="of its log-probabilities (default: 0.5)"
    )
    parser.add_argument(
        "--rescore_bonus", type=float, help="what each token adds (default: 0)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="weights of 8 bits of an exported model"
    )
    parser.add_argument(
        "--batch_size", type=int, default=16, help="files processed together (16)"
    )
    parser.add_argument(
        "--long_above",
        type=float,
        default=30.0,
        help="files longer than this many seconds are recognised in windows (30)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Recognise the files; return 1 if one of them failed.

    Raises:
        UserError: An option is wrong, the model cannot be loaded, or results cannot be
            written.
    """
    from espnet_cif_hkd.inference.batch import (
        Batch,
        Progress,
        Summary,
        clock,
        total_seconds,
    )
    from espnet_cif_hkd.inference.inputs import recordings
    from espnet_cif_hkd.inference.results_folder import ResultsFolder

    check_search(args)
    for name in ("batch_size", "long_above"):
        value = getattr(args, name)
        if value < 1:
            raise UserError(f"--{name} {value}: write 1 or more")
    if args.ctc_weight is not None and args.beam is None:
        raise UserError("--ctc_weight needs a beam search: add --beam 5")
    if args.rescore_lm is not None and args.beam is None:
        raise UserError("--rescore_lm needs a beam search: add --beam 10")
    for name in ("rescore_weight", "rescore_bonus"):
        if getattr(args, name) is not None and args.rescore_lm is None:
            raise UserError(f"--{name} needs --rescore_lm")
    outputs = outputs_of(args)
    chosen = recordings(args.audio)
    progress = Progress(quiet=args.quiet)
    sink: Printer | ResultsFolder = Printer(outputs[0])
    if args.output_dir is not None:
        made_by = {n: getattr(args, n) for n in _SEARCH}
        made_by |= _rescoring(args) | one_pass_of(args)
        made_by |= {"int8": True} if args.int8 else {}
        sink = folder_of(args, outputs, made_by)
        chosen = remaining(sink, chosen, progress)
    done = Summary()
    if chosen:
        with quiet_libraries(args.verbose, args.model):
            recognizer = _recognizer(args)
            work, long_work = _work(recognizer, args.stream, progress, sink)
            if progress.shown:
                progress.total = total_seconds(chosen)
            batch = Batch(
                work,
                sink,
                recognizer.sampling_rate,
                channel=args.channel,
                batch_size=args.batch_size,
                long_work=long_work,
                long_above=0.0 if args.stream else args.long_above,
                progress=progress,
            )
            done = batch.run(chosen)
    if isinstance(sink, ResultsFolder):
        sink.join()
        if done.done:
            what = f"{done.done} files, {clock(done.seconds)} of audio"
            progress.note(f"{what}: {sink.folder}")
    if done.failed and len(chosen) > 1:
        progress.say(f"{done.failed} of {len(chosen)} files failed")
    return int(done.failed > 0)


def _rescoring(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of rescoring, if there is any; a folder has its full path."""
    if args.rescore_lm is None:
        return {}
    from espnet_cif_hkd.inference.nbest import WEIGHT

    lm, weight, bonus = args.rescore_lm, args.rescore_weight, args.rescore_bonus
    return {
        "rescore_lm": os.path.abspath(lm) if os.path.isdir(lm) else lm,
        "rescore_weight": WEIGHT if weight is None else weight,
        "rescore_bonus": bonus or 0.0,
    }


def _recognizer(args: argparse.Namespace) -> Any:
    from espnet_cif_hkd.inference.onnx_folder import is_exported

    if is_exported(args.model):
        return _exported(args)
    if args.int8:
        raise UserError(
            f"--int8: {args.model} is no exported model: export it first (espnet-cif "
            "export --int8)"
        )
    from espnet_cif_hkd.inference.recognizer import Recognizer

    return Recognizer(
        args.model,
        ctc_weight=args.ctc_weight,
        device=device_of(args.device),
        batch_size=args.batch_size,
        **search_of(args),
        **_rescoring(args),
    )


def _exported(args: argparse.Namespace) -> Any:
    """Return the recogniser of an exported model, without torch."""
    from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer

    for name in _NOT_EXPORTED:
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name}: {args.model} is an exported model, which has no beam "
                f"search: leave out --{name}, or give the folder of the training"
            )
    if args.device not in ("auto", "cpu"):
        raise UserError(
            f"--device {args.device}: exported models run on the CPU: leave it out"
        )
    found = OnnxRecognizer(
        args.model,
        int8=args.int8,
        one_pass=True if args.one_pass else None,
        fallback_below=args.fallback_below or 0.0,
        batch_size=args.batch_size,
    )
    if found.is_streaming and not args.stream:
        raise UserError(
            f"{args.model} was exported with --streaming: add --stream, or export the "
            "model again without --streaming"
        )
    return found


def _work(
    recognizer: Any,
    stream: bool,
    progress: "Progress",
    sink: "Printer | ResultsFolder",
) -> "tuple[Work, LongWork]":
    """Return what recognises short files, and what recognises long ones."""
    from espnet_cif_hkd.inference.joining import joined

    def work(recordings: Any, samples: Any) -> "list[Recognition]":
        return list(recognizer.recognise(samples))

    def streamed(recording: Any, audio: Any) -> "Recognition":
        running = recognizer.stream()
        seconds = 0.0
        for block in audio.blocks(_PIECE):
            partial = running.accept(block)
            seconds += len(block) / audio.rate
            progress.at(progress.done + seconds, partial.text[-60:])
        return running.finish()  # type: ignore[no-any-return]

    def windowed(recording: Any, audio: Any) -> "Recognition":
        def read(start: float, end: float) -> Any:
            progress.at(progress.done + start, recording.name)
            return audio.read(start, end)

        def passages(state: Any = None) -> "Iterator[Recognition]":
            for passage in recognizer.long(read, audio.duration, state=state):
                if isinstance(sink, Printer) and passage.tokens:
                    progress.clear()
                    sink.passage(recording, passage)
                yield passage

        state = None if isinstance(sink, Printer) else sink.state(recording)
        return joined(passages(state), audio.duration)

    if stream:
        recognizer.stream()  # refuses a model that does not stream
        return work, streamed
    return work, windowed


def main(cmd: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return guarded(run, get_parser().parse_args(cmd))


if __name__ == "__main__":
    sys.exit(main())
