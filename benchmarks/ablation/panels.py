"""The style of all pictures: colours, sizes, keys, labels at line ends, SVG files.

A picture is 7.2 inches wide, about 690 pixels on a page. The colours are those of Okabe
and Ito, which most people can distinguish; markers and labels repeat the information.
"""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from compact_svg import compact
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablation.matrix import Matrix
from espnet_cif_hkd.io.tables import write_text

WIDTH = 7.2
INK = "#22303c"
PALE = "#7a8793"
_SYSTEMS = {"acd": ("#0072b2", "o"), "lrd": ("#d55e00", "^"), "hkd": ("#009e73", "s")}
_OTHERS = (("#cc79a7", "D"), ("#56b4e9", "v"), ("#b08a00", "P"))
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#dde2e6",
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "ablation",
}


@dataclass(frozen=True)
class Look:
    """The style of a system in all pictures."""

    color: str
    marker: str
    linestyle: str
    label: str

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of ``plot``."""
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.linestyle,
            "label": self.label,
        }


def looks(matrix: Matrix) -> dict[str, Look]:
    """Styles of all systems, the same for all corpora and any set of runs."""
    found, others = {}, itertools.cycle(_OTHERS)
    for name, system in matrix.systems.items():
        if name == matrix.baseline:
            found[name] = Look(INK, "x", "-", system.label)
        elif system.outside:
            found[name] = Look(PALE, "+", "--", system.label)
        else:
            color, marker = _SYSTEMS[name] if name in _SYSTEMS else next(others)
            found[name] = Look(color, marker, "-", system.label)
    return found


@contextmanager
def style() -> Iterator[None]:
    """The settings of matplotlib in which pictures are drawn."""
    with matplotlib.rc_context(_STYLE):
        yield


def canvas(height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with its panels, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def key(figure: Figure, axes: Iterable[Axes]) -> None:
    """One key above all panels, not wider than the figure."""
    handles: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper left",
            ncols=columns,
            frameon=False,
            handlelength=1.8,
            columnspacing=1.4,
        )
        if legend.get_window_extent().width <= figure.bbox.width:
            return
        if columns > 1:
            legend.remove()


def label_ends(
    figure: Figure,
    axes: Axes,
    ends: Sequence[tuple[float, float, str, str]],
    gap: float = 11,
) -> None:
    """Write labels after the ends of lines, moved apart where they would overlap.

    Args:
        figure: the figure.
        axes: a panel of it with its final limits and scales.
        ends: ``(x, y, label, colour)`` of each line, in data coordinates.
        gap: between two labels, in points.
    """
    figure.draw_without_rendering()
    points = 72 / figure.dpi
    places = [axes.transData.transform((x, y))[1] * points for x, y, *_ in ends]
    order = sorted(range(len(ends)), key=lambda i: places[i])
    for number, moved in zip(order, _apart([places[i] for i in order], gap)):
        x, y, label, color = ends[number]
        axes.annotate(
            label,
            (x, y),
            xytext=(14, moved - places[number]),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkA": 0},
        )


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places with at least ``gap`` between them, moved as little as possible.

    Labels that overlap become a group around their mean; overlapping groups merge.
    """
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(
            groups[-1], gap
        ):
            last = groups.pop()
            groups[-1] += last
    return [
        _bottom(group, gap) + gap * number
        for group in groups
        for number in range(len(group))
    ]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2


def save(figure: Figure, path: Path) -> None:
    """Write an SVG, the same bytes for the same numbers."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    write_text(path, compact(stream.getvalue()))
