"""Find the times of a known text in audio files.

Results are written as by transcribe.

  espnet-cif align talk.wav --text "what is said" --model exp/asr_x -f textgrid
  espnet-cif align wav.scp --text data/test/text --model exp/asr_x -f ctm -o times
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
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
from espnet_cif_hkd.errors import UserError

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.inputs import Recording
    from espnet_cif_hkd.inference.recognition import Recognition


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    add_options(parser)
    parser.add_argument(
        "--text",
        required=True,
        help="the text of the file, or a Kaldi table of texts: names and words",
    )
    return parser


def texts_of(given: str, recordings: "Sequence[Recording]") -> Mapping[str, str]:
    """Return the text of each recording.

    Args:
        given: A text, for one recording, or a Kaldi table of texts. A text file for one
            recording may also have no name at the beginning of its only line.
        recordings: The recordings.

    Raises:
        UserError: A recording has no text.
    """
    from espnet_cif_hkd.io.tables import read_lines, read_text, single_spaced

    one = recordings[0].name if len(recordings) == 1 else None
    # A sentence may be too long for Path.is_file().
    if not os.path.isfile(given):
        if one is None:
            raise UserError(
                f"--text {given}: no such file; several recordings need a table of "
                "names and texts"
            )
        return {one: single_spaced(given)}
    path = Path(given)
    lines = [line for line in read_lines(path) if line.strip()]
    if one is not None and not any(line.split()[0] == one for line in lines):
        return {one: single_spaced(" ".join(lines))}
    table = read_text(path)
    missing = [
        recording.name for recording in recordings if recording.name not in table
    ]
    if missing:
        raise UserError(
            f"{path}: no text for {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + ": the first column has the name of the audio file without suffix"
        )
    return table


def run(args: argparse.Namespace) -> int:
    """Align the files; return 1 if one of them failed.

    Raises:
        UserError: An option is wrong, or the model cannot be loaded.
    """
    from espnet_cif_hkd.inference.batch import Batch, Progress
    from espnet_cif_hkd.inference.inputs import recordings
    from espnet_cif_hkd.inference.results_folder import ResultsFolder

    outputs = outputs_of(args)
    chosen = recordings(args.audio)
    texts = texts_of(args.text, chosen)
    progress = Progress(quiet=args.quiet)
    sink: Printer | ResultsFolder = Printer(outputs[0])
    if args.output_dir is not None:
        sink = folder_of(args, outputs, {}, lambda one: texts[one.name])
        chosen = remaining(sink, chosen, progress)
    failed = 0
    if chosen:
        with quiet_libraries(args.verbose, args.model):
            from espnet_cif_hkd.inference.recognizer import Recognizer

            recognizer = Recognizer(args.model, device=device_of(args.device))

            def work(names: Any, waves: Any) -> "list[Recognition]":
                pairs = zip(names, waves, strict=True)
                return [recognizer.align(wave, texts[one.name]) for one, wave in pairs]

            rate = recognizer.sampling_rate
            batch = Batch(
                *(work, sink, rate),
                channel=args.channel,
                batch_size=1,
                progress=progress,
            )
            failed = batch.run(chosen).failed
    if isinstance(sink, ResultsFolder):
        sink.join()
    return int(failed > 0)


def main(cmd: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return guarded(run, get_parser().parse_args(cmd))


if __name__ == "__main__":
    sys.exit(main())
