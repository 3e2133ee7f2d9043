"""Compare a training with the published one: a table, a verdict, a picture.

``python3 -m espnet_cif_hkd.cli.learning_curve --log exp/asr_*/train.log``

The published numbers are in bits per token, ESPnet's log is in nats. This module
converts the log. It changes the base, adds the constant that ESPnet's label smoothing
omits, uses the paper's loss weights instead of the run's, and takes ``cer_free`` as dev
error. Numbers that cannot be converted are not compared, or have a note under the
table.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from espnet_cif_hkd.cli.command import command_parser, exit_status
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.training_log import Training, group_logs, read_training

Point = dict[str, float]

_TABLES = {
    "training": ("train_loss", "train_nll", "train_ctc", "train_quantity"),
    "validation": ("dev_ctc", "dev_quantity", "dev_error"),
}
_TITLES = {
    "train_loss": "loss*",
    "train_nll": "nll",
    "train_ctc": "ctc*",
    "train_quantity": "quantity",
    "dev_ctc": "ctc*",
    "dev_quantity": "quantity",
    "dev_error": "error %",
}
NOTES = """\
Losses are bits per target token, </s> included; nll is without label smoothing.
* ctc: the published labels include </s>, ours do not: similar, not equal; the loss
  contains half of it. Terms of a distillation are not in the loss.
error: argmax after known prefixes, vectors fired by unscaled alpha (cer_free). The
  published one also counts vectors fired after the place of </s>, up to the length
  of the longest text of the batch; ours may be lower while length_error is large,
  in the last epoch {length_error:.1f} %.
Dev loss and dev nll are not compared: ours scale alpha to the known length there."""


@dataclass(frozen=True)
class Published:
    """The published curve.

    Attributes:
        corpus: training corpus, in words.
        vocab_size, lsm_weight, ctc_weight, quantity_weight: options of that training.
        sane: limits for a correct run: ``train_loss`` and ``dev_error`` after
            ``updates``.
        points: values by column, one mapping for each epoch.
    """

    corpus: str
    vocab_size: int
    lsm_weight: float
    ctc_weight: float
    quantity_weight: float
    sane: Point
    points: list[Point]

    def at(self, column: str, axis: str, place: float) -> float | None:
        """Interpolate a column; None outside of the curve.

        Curves are nearly straight in double logarithms. The interpolated values differ
        from the authors' complete log by at most 4 % (losses), 9 % (error, training
        quantity) or 39 % (dev quantity, which jumps from epoch to epoch).

        Args:
            column: name of the column.
            axis: "updates" or "epoch".
            place: position on that axis.
        """
        for low, high in zip(self.points, self.points[1:], strict=False):
            if low[axis] <= place <= high[axis]:
                share = math.log(place / low[axis]) / math.log(high[axis] / low[axis])
                return float(low[column] * (high[column] / low[column]) ** share)
        return None


def read_published() -> Published:
    """Read the curve from this package's ``published_curve.yaml``."""
    text = resources.files(__package__).joinpath("published_curve.yaml")
    data: dict[str, Any] = yaml.safe_load(text.read_text(encoding="utf-8"))
    columns, rows = data.pop("columns"), data.pop("rows")
    points = [dict(zip(columns, row, strict=True)) for row in rows]
    return Published(points=points, **data)


def smoothing_constant(lsm_weight: float, vocab_size: int) -> float:
    """Entropy of a smoothed target, in nats.

    The published loss is a cross-entropy. ESPnet's label smoothing loss is a
    Kullback-Leibler divergence: the cross-entropy minus this constant.
    """
    if lsm_weight == 0:
        return 0.0
    other = lsm_weight / (vocab_size - 1)
    correct = 1 - lsm_weight
    return -correct * math.log(correct) - lsm_weight * math.log(other)


def convert(training: Training, published: Published) -> list[Point]:
    """Convert the epochs of a training to the units of the published curve.

    Returns:
        For each epoch the columns of the published curve and ``length_error`` in per
        cent; ``dev_error`` is NaN if the log has no ``cer_free``.
    """
    bits = 1 / math.log(2)
    constant = smoothing_constant(training.lsm_weight, training.vocab_size)
    points = []
    for epoch in training.epochs:
        train, valid = epoch.train, epoch.valid
        loss = train["loss_att"] + constant
        loss += published.ctc_weight * train["loss_ctc"]
        loss += published.quantity_weight * train["loss_quantity"]
        points.append(
            {
                "epoch": float(epoch.number),
                "updates": float(epoch.updates),
                "train_loss": bits * loss,
                "train_nll": bits * train["nll"],
                "train_ctc": bits * train["loss_ctc"],
                "train_quantity": bits * train["loss_quantity"],
                "dev_ctc": bits * valid.get("loss_ctc", math.nan),
                "dev_quantity": bits * valid["loss_quantity"],
                "dev_error": 100 * valid.get("cer_free", math.nan),
                "length_error": 100 * valid.get("length_error", math.nan),
            }
        )
    return points


def table(points: list[Point], published: Published, kind: str, axis: str) -> str:
    """Return a table by epoch: our value, the published one, ratio or difference.

    Errors are compared by difference, losses by ratio.

    Args:
        points: result of :func:`convert`.
        published: the curve.
        kind: "training" or "validation".
        axis: compare at equal "updates" or at equal "epoch".
    """
    columns = _TABLES[kind]
    head = f"{'epoch':>5}{'updates':>9}  "
    for column in columns:
        last = "diff" if column == "dev_error" else "ratio"
        head += f"{_TITLES[column]:>9}{'publ.':>7}{last:>7}"
    lines = [f"{kind}:", head]
    for point in points:
        line = f"{point['epoch']:5.0f}{point['updates']:9,.0f}  "
        for column in columns:
            value, other = point[column], published.at(column, axis, point[axis])
            line += f"{value:9.3f}" if math.isfinite(value) else f"{'-':>9}"
            if other is None or not math.isfinite(value):
                line += f"{'-':>7}{'-':>7}"
            elif column == "dev_error":
                line += f"{other:7.2f}{value - other:+7.1f}"
            else:
                line += f"{other:7.3f}{value / other:7.2f}"
        lines.append(line)
    return "\n".join(lines)


def verdict(points: list[Point], published: Published) -> str:
    """Compare the run with the limits of the published curve; one line."""
    sane = published.sane

    def below(point: Point) -> bool:
        error = point["dev_error"]
        good = math.isnan(error) or error < sane["dev_error"]
        return good and point["train_loss"] < sane["train_loss"]

    def described(point: Point) -> str:
        error = point["dev_error"]
        words = f"{error:.1f} %" if math.isfinite(error) else "not in the log"
        return (
            f"after {point['updates']:,.0f} updates (epoch {point['epoch']:.0f}) the "
            f"training loss is {point['train_loss']:.2f} and the dev error {words}"
        )

    marks = (
        f"below {sane['train_loss']:g} and {sane['dev_error']:g} % by "
        f"{sane['updates']:,.0f} updates"
    )
    due = next((p for p in points if p["updates"] >= sane["updates"]), None)
    first = next((p for p in points if below(p)), None)
    if first is not None and (due is None or first["updates"] <= due["updates"]):
        return f"sane: {described(first)}; wanted: {marks}"
    if first is not None:
        return f"late: {described(first)}; wanted: {marks}"
    if due is None:
        return f"too early to say: {described(points[-1])}; wanted: {marks}"
    return (
        f"not sane: {described(points[-1])}; wanted: {marks}. Look at the learning "
        "rate, the clipping, and whether audio and transcripts belong together"
    )


def report(training: Training, published: Published, axis: str) -> str:
    """Return the complete text for one training."""
    points = convert(training, published)
    notes = [f"note: {note}" for note in training.notes]
    conclusion = verdict(points, published)
    if abs(training.vocab_size / published.vocab_size - 1) > 0.05:
        notes.append(
            f"note: {training.vocab_size:,} tokens here, {published.vocab_size:,} "
            "there: these are different tasks, and ratios say little"
        )
        conclusion = f"none: its marks are for {published.corpus}"
    if training.lsm_weight != published.lsm_weight:
        notes.append(
            f"note: label smoothing {training.lsm_weight:g} here, "
            f"{published.lsm_weight:g} there: compare nll, not the loss"
        )
    return "\n".join(
        [
            f"{training.name}: compared with {published.corpus}, at equal {axis}",
            *notes,
            *(f"\n{table(points, published, kind, axis)}" for kind in _TABLES),
            f"\n{NOTES.format_map(points[-1])}\n",
            f"verdict: {conclusion}",
        ]
    )


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__.splitlines()[0])
    parser.add_argument(
        *("--log", "--logs"),
        dest="logs",
        type=Path,
        nargs="+",
        required=True,
        help="train.log of one or more trainings; also train.N.log if resumed",
    )
    parser.add_argument(
        "--config", type=Path, help="config.yaml (default: in the folder of the log)"
    )
    parser.add_argument(
        "--by",
        choices=("updates", "epoch"),
        default="updates",
        help="where the published curve is read (default: at equal updates)",
    )
    parser.add_argument("--out", type=Path, help="also draw the curves into this PNG")
    return parser


def compare(args: argparse.Namespace) -> None:
    """Print the comparison; draw it if ``--out`` is given.

    Raises:
        UserError: a log cannot be used.
    """
    groups = group_logs(args.logs)
    if args.config is not None and len(groups) > 1:
        raise UserError("--config belongs to one training, but the logs are of several")
    published = read_published()
    trainings = [read_training(logs, args.config) for logs in groups.values()]
    reports = [report(training, published, args.by) for training in trainings]
    print("\n\n".join(reports))
    if args.out is not None:
        from espnet_cif_hkd.cli.curve_figure import draw

        curves = {t.name: convert(t, published) for t in trainings}
        draw(curves, published.points, published.corpus, args.out)
        print(args.out)


def main(cmd: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(cmd)
    return exit_status(lambda: compare(args))


if __name__ == "__main__":
    sys.exit(main())
