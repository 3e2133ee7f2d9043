"""Show results of the demo's model: a table, sentences, times, one picture."""

import argparse
import contextlib
import io
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from demo_progress import EPOCH

from espnet_cif_hkd.cli import plot_alignment
from espnet_cif_hkd.cli.plot_alignment import read_table
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.figure import Alignment, labels_of
from espnet_cif_hkd.recipe.stages.report import sums_of
from espnet_cif_hkd.recipe.stages.sclite import align

MODEL = "valid.acc.ave.pth"
_FEWEST_LETTERS = 15
_MOST_LETTERS = 50
_MARK = "\u2581"  # of a sub-word that begins a word


@dataclass(frozen=True)
class Decoded:
    """One test utterance with its character error rate."""

    utt_id: str
    reference: str
    hypothesis: str
    cer: float


def error_rate(result: Path) -> float:
    """Return the error column of the sums in a ``result.txt``, in per cent.

    Raises:
        UserError: the file is missing or has no sums.
    """
    if not result.is_file():
        raise UserError(f"{result}: no such file; run stage 13")
    sums = sums_of(result)
    if sums is None or len(sums) < 8:
        raise UserError(f"{result}: no line Sum/Avg; run stage 13 again")
    return float(sums[-2])


def decoded_utterances(data: Path, folder: Path) -> list[Decoded]:
    """Pair references with hypotheses, sorted by error rate, then by utterance."""
    hypotheses = read_table(folder / "text")
    rows = []
    for utt_id, reference in read_table(data / "text").items():
        hypothesis = hypotheses.get(utt_id, "")
        errors = align(list(reference), list(hypothesis)).errors
        rows.append(Decoded(utt_id, reference, hypothesis, errors / len(reference)))
    return sorted(rows, key=lambda row: (row.cer, row.utt_id))


def to_show(rows: list[Decoded]) -> tuple[Decoded, Decoded, Decoded]:
    """Choose the best, the middle and the worst of the sentences that fit a picture."""
    fitting = [
        row for row in rows if _FEWEST_LETTERS <= len(row.reference) <= _MOST_LETTERS
    ]
    fitting = fitting or rows
    return fitting[0], fitting[len(fitting) // 2], fitting[-1]


def word_times(alignment: Alignment) -> list[tuple[str, float, float]]:
    """Return the words with the times between which their tokens fire, in seconds.

    A word begins after ``<space>``, or with a sub-word that begins with its mark.
    """
    words: list[tuple[str, float, float]] = []
    word, begin, end = "", 0.0, 0.0
    for token, (start, stop, _) in zip(
        alignment.tokens, labels_of(alignment), strict=False
    ):
        if word and (token == "<space>" or token.startswith(_MARK)):
            words.append((word, begin, end))
            word = ""
        letters = "" if token == "<space>" else token.removeprefix(_MARK)
        if letters:
            begin = begin if word else start
            word, end = word + letters, stop
    return [*words, (word, begin, end)] if word else words


def learning_curve(train_log: Path) -> list[float]:
    """Return the CTC branch's CER on the development set after each pass, in %."""
    text = train_log.read_text(encoding="utf-8", errors="replace")
    return [100 * float(match.group(2)) for match in EPOCH.finditer(text)]


def print_table(args: argparse.Namespace, folder: Path) -> None:
    """Print the error rates and the sizes of the data."""
    trained = len(read_table(args.train_data / "text"))
    tested = len(read_table(args.data / "text"))
    rates = [
        error_rate(folder / f"score_{unit}" / "result.txt") for unit in ("cer", "wer")
    ]
    print("\n| system             | trained on | tested on | CER % | WER % |")
    print("|--------------------|------------|-----------|-------|-------|")
    print(
        f"| {args.label:18} | {trained:5} utt. | {tested:4} utt. "
        f"| {rates[0]:5.1f} | {rates[1]:5.1f} |"
    )
    logs = sorted(args.exp.glob("train*.log"), reverse=True)
    curve = [rate for log in logs for rate in learning_curve(log)]
    if curve:
        shown = " ".join(f"{rate:.0f}" for rate in curve)
        print(f"\nCER of the CTC branch on dev after each pass: {shown}")
    print(
        "\nA few minutes of training on a part of the corpus: expect wrong spelling. "
        "\negs2/fotaq/asr_hkd/README.md describes the training on the complete corpus."
    )


def report(args: argparse.Namespace) -> None:
    """Print the table, the sentences and the times, and draw the picture.

    Raises:
        UserError: a file of an earlier stage is missing.
    """
    folder = args.exp / args.inference_tag / args.data.name
    print_table(args, folder)
    best, middle, worst = to_show(decoded_utterances(args.data, folder))
    shown = {"best": best, "median": middle, "worst": worst}
    for name, row in shown.items():
        print(f"\nThe {name} of the sentences of middle length ({row.utt_id}):")
        print(f"  reference  {row.reference}\n  decoded    {row.hypothesis}")
    picture = args.exp / "images" / f"cif_{best.utt_id}.png"
    print("\ndrawing the picture, about 15 seconds ...", flush=True)
    plot = plot_alignment.get_parser().parse_args(
        [
            *("--model_file", str(args.exp / MODEL)),
            *("--train_config", str(args.exp / "config.yaml")),
            *("--wav_scp", str(args.data / "wav.scp")),
            *("--text", str(args.data / "text")),
            *("--hyp_dir", str(folder)),
            *("--utt_id", best.utt_id, "--out", str(picture)),
        ]
    )
    # Messages of ESPnet's imports about optional packages are not useful here.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):
            alignment = plot_alignment.plot(plot)
    print(f"\nWhen the words of {best.utt_id} fire, in seconds:")
    for word, begin, end in word_times(alignment):
        print(f"  {begin:5.2f} to {end:5.2f}  {word}")
    print(f"\nwaveform, alpha, firing times and tokens: {picture.resolve()}")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="the model's folder")
    parser.add_argument("--inference_tag", required=True)
    parser.add_argument(
        "--data", type=Path, required=True, help="data/ of the test set"
    )
    parser.add_argument("--train_data", type=Path, required=True)
    parser.add_argument("--label", default="CIF", help="the system, in the table")
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(cmd)
    try:
        report(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
