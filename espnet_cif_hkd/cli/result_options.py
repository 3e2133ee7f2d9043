"""Options that transcribe and align have in common, and what they do with them."""

import argparse
import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_cif_hkd.cli.command import exit_status
from espnet_cif_hkd.errors import UserError, one_line

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.batch import Progress
    from espnet_cif_hkd.inference.inputs import Recording
    from espnet_cif_hkd.inference.recognition import Recognition
    from espnet_cif_hkd.inference.results_folder import ResultsFolder
    from espnet_cif_hkd.inference.writers import Output

_LIMITS = ("line", "lines", "shortest", "longest", "speed")


def add_audio(parser: argparse.ArgumentParser) -> None:
    """Add the recordings that a command reads."""
    parser.add_argument(
        "audio",
        nargs="+",
        metavar="FILE",
        help="audio files, folders, patterns, or a table wav.scp",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for audio, model, formats and output."""
    add_audio(parser)
    parser.add_argument(
        "--model",
        "-m",
        required=True,
        help="folder of a training (exp/asr_…), packed model (zip), tag, or, for "
        "transcribe, folder of an exported model",
    )
    parser.add_argument(
        "--output_format",
        "-f",
        default="txt",
        metavar="FORMAT[,FORMAT...]",
        help="txt, json, srt, vtt, tsv, ctm, textgrid, text and kaldi (Kaldi's tables "
        "of utterances and of segments), or all (default: txt)",
    )
    parser.add_argument(
        "--output_dir",
        "-o",
        type=Path,
        help="folder for the files (default: print the result)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write files again that are complete; otherwise they are skipped",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    parser.add_argument(
        "--channel",
        default="mean",
        help="of several channels: mean, or a number from 0 (default: mean)",
    )
    parser.add_argument("--verbose", action="store_true", help="show ESPnet's log")
    parser.add_argument("--quiet", action="store_true", help="report errors only")
    group = parser.add_argument_group("subtitles (srt, vtt)")
    group.add_argument(
        "--line", type=int, help="characters of a line (default: 42, Chinese 16)"
    )
    group.add_argument("--lines", type=int, default=2, help="lines of a cue (2)")
    group.add_argument(
        "--shortest", type=float, default=5 / 6, help="least seconds of a cue (5/6)"
    )
    group.add_argument(
        "--longest", type=float, default=7.0, help="most seconds of a cue (7)"
    )
    group.add_argument(
        "--speed", type=float, default=20.0, help="most characters a second (20)"
    )


def outputs_of(args: argparse.Namespace) -> "list[Output]":
    """Return the files to write for a recording.

    Raises:
        UserError: A format or a limit of subtitles is wrong, or the formats do not fit
            on the standard output.
    """
    from espnet_cif_hkd.inference.subtitles import Limits
    from espnet_cif_hkd.inference.writers import formats_of

    limits = Limits(**{name: getattr(args, name) for name in _LIMITS})
    limits.check()
    outputs = formats_of(args.output_format.split(","), limits)
    if args.output_dir is None and len(outputs) > 1:
        raise UserError(
            f"-f {args.output_format} needs several files: give -o a folder, or choose "
            "one format"
        )
    return outputs


class Printer:
    """Prints results; text of long recordings passage by passage.

    Args:
        output: What to print.
    """

    def __init__(self, output: "Output") -> None:
        # That of the command, while libraries may print elsewhere.
        self._out, self._output = sys.stdout, output
        self._is_text = output.path == "{name}.txt"
        self._begun: Recording | None = None

    def __call__(self, one: "Recording", found: "Recognition") -> None:
        """Print a result, unless its passages were printed."""
        if one is not self._begun:
            self._print(one, found)

    def passage(self, one: "Recording", found: "Recognition") -> None:
        """Print a passage of a result, if the passages together are the result."""
        if self._is_text:
            self._begun = one
            self._print(one, found)

    def _print(self, one: "Recording", found: "Recognition") -> None:
        self._out.write(self._output.write(found, one.name))
        self._out.flush()


def folder_of(
    args: argparse.Namespace,
    outputs: "Sequence[Output]",
    made_by: Mapping[str, Any],
    details: "Callable[[Recording], Any] | None" = None,
) -> "ResultsFolder":
    """Return the folder of ``--output_dir``.

    Args:
        args: The options of :func:`add_options`.
        outputs: The files of a recording.
        made_by: Further options that change results.
        details: See :class:`ResultsFolder`.

    Raises:
        UserError: ``--model`` is no model.
    """
    from espnet_cif_hkd.inference.results_folder import ResultsFolder

    model = Path(args.model)
    known = {
        "model": str(model.resolve()) if model.exists() else args.model,
        **(_contents(model) if model.exists() else {}),
        "channel": args.channel,
        **made_by,
        **{name: getattr(args, name) for name in _LIMITS},
    }
    return ResultsFolder(args.output_dir, outputs, known, args.overwrite, details)


def _contents(model: Path) -> dict[str, str]:
    """Digests of the files of a model that change results.

    A training that goes on, or a calibration, keeps their names.
    """
    from espnet_cif_hkd.inference.onnx_folder import is_exported
    from espnet_cif_hkd.io.digest import sha256

    if is_exported(model):
        files = sorted(one for one in model.iterdir() if one.is_file())
        return {"exported": " ".join(sha256(one)[:12] for one in files)}
    from espnet_cif_hkd.inference.calibration import calibration_file
    from espnet_cif_hkd.inference.model_files import model_files

    if model.is_file() and model.suffix != ".pth":  # packed
        return {"model_file": sha256(model)[:12]}
    file = Path(model_files(model)["asr_model_file"])
    beside = calibration_file(file.resolve())
    found = {"model_file": sha256(file)[:12]}
    if beside.is_file():
        found["calibration"] = sha256(beside)[:12]
    return found


def remaining(
    folder: "ResultsFolder", chosen: "list[Recording]", progress: "Progress"
) -> "list[Recording]":
    """Return the recordings without results, and say how many are skipped."""
    left = folder.remaining(chosen)
    if len(left) < len(chosen):
        progress.note(
            f"{len(chosen) - len(left)} of {len(chosen)} files have complete results "
            f"in {folder.folder}: skipped; --overwrite writes them again"
        )
    return left


@contextlib.contextmanager
def quiet_libraries(verbose: bool, model: str | None = None) -> Iterator[None]:
    """Keep the terminal for results, errors and this package's warnings.

    Args:
        verbose: Show what ESPnet and other packages print and log, too.
        model: ``--model``; if it is a tag, the progress of its download is shown.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler])
    with contextlib.ExitStack() as stack:
        if verbose:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        else:
            handler.addFilter(_is_ours)
            warnings.simplefilter("ignore")
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            if model is None or Path(model).exists():
                stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _is_ours(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or "espnet_cif_hkd" in record.pathname


def device_of(name: str) -> str:
    """Return a device of torch for ``auto``, ``cpu`` or ``cuda[:N]``.

    Raises:
        UserError: There is no such device.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch finds no GPU here: use --device cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = one_line(error, 150)
        raise UserError(f"--device {name}: {reason}: use --device cpu") from error
    return name


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; return its exit code.

    A ``UserError`` is one line and 1; an interruption 130; a closed pipe 0, as for
    other programs in front of ``head``.
    """
    try:
        return exit_status(lambda: run(args))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The interpreter flushes the standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
