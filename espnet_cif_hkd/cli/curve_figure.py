"""Draw learning curves over the published one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import replacing

_PANELS = {"train_loss": "training loss, bits per token", "dev_error": "dev error, %"}
_PUBLISHED = "#7a8793"


def draw(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    published: Sequence[Mapping[str, float]],
    corpus: str,
    out: Path,
) -> None:
    """Write a PNG of loss and error over the updates.

    The file appears only when it is complete.

    Args:
        curves: points of each training, by its name.
        published: points of the published training.
        corpus: corpus of the published training.
        out: the file to write.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "pictures need matplotlib: pip install matplotlib, and run this again"
        ) from None
    figure = Figure(figsize=(10.0, 4.5), dpi=110, layout="constrained")
    for axes, (column, label) in zip(
        figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True
    ):
        for name, points in {f"published, {corpus}": published, **curves}.items():
            theirs = points is published
            axes.plot(
                [point["updates"] for point in points],
                [point[column] for point in points],
                color=_PUBLISHED if theirs else None,
                linestyle="--" if theirs else "-",
                marker=".",
                label=name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("updates")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    try:
        with replacing(out) as part:
            figure.savefig(part, format="png")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
