#!/usr/bin/env python3
"""Draw docs/hkd.svg: the data flow in training, and the firing of tokens.

    python3 tools/draw_hkd.py

The lower half is computed: alpha of one utterance of a test vector, fired by
``integrate_and_fire`` with its tail.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from compact_svg import compact_file  # noqa: E402

from espnet_cif_hkd.cif import integrate_and_fire  # noqa: E402

PICTURE = ROOT / "docs/hkd.svg"
VECTORS = ROOT / "tests/data/cif_eval_tail_0p5.npz"
UTTERANCE = 1

# Names in the log, with the weights of the paper.
LOSSES = {
    "loss_ctc": "0.5",
    "loss_quantity": "1.0",
    "loss_att": "1.0",
    "loss_acd": "1.0",
    "loss_lrd": "0.01",
}

_INK = "#22303c"
_PALE = "#7a8793"
_MODEL = "#dce8f5"
_LOSS = "#fbe3d6"
_TEACHER = "#e4f0dc"
_TOKENS = ("#2b6cb0", "#e0a03c")


def _centred(
    axes: Axes, x: float, y: float, text: str, size: float = 9, color: str = _INK
) -> None:
    """Draw text centred at a point, line by line, so that any font is centred."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        axes.annotate(
            line,
            (x, y),
            xytext=(0, ((len(lines) - 1) / 2 - number) * size * 1.25),
            textcoords="offset points",
            ha="center",
            va="center",
            size=size,
            color=color,
        )


def _box(
    axes: Axes,
    centre: tuple[float, float],
    size: tuple[float, float],
    text: str,
    **kw: Any,
) -> None:
    (x, y), (width, height) = centre, size
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.8",
            facecolor=kw.get("color", _MODEL),
            edgecolor=_INK,
            linewidth=0.8,
            linestyle=kw.get("linestyle", "-"),
        )
    )
    _centred(axes, x, y, text)


def _loss(axes: Axes, centre: tuple[float, float], text: str, name: str) -> None:
    words = f"{text}\n{name} × {LOSSES[name]}"
    _box(axes, centre, (20, 6.4), words, color=_LOSS)


def _arrow(axes: Axes, *points: tuple[float, float], **kw: Any) -> None:
    """Draw an arrow through points."""
    for begin, end in itertools.pairwise(points[:-1]):
        axes.plot(*zip(begin, end), color=_INK, lw=0.9, ls=kw.get("linestyle", "-"))
    axes.add_patch(
        FancyArrowPatch(
            points[-2],
            points[-1],
            arrowstyle="-|>",
            mutation_scale=9,
            shrinkA=0,
            shrinkB=0,
            color=_INK,
            linewidth=0.9,
            linestyle=kw.get("linestyle", "-"),
        )
    )


def draw_way(axes: Axes) -> None:
    """Draw the modules, and the output that each loss uses."""
    axes.set_xlim(0, 120)
    axes.set_ylim(0, 58)
    axes.axis("off")
    row = 26.0

    def note(x: float, y: float, text: str) -> None:
        _centred(axes, x, y, text, 8, _PALE)

    _centred(axes, 5, row, "speech")
    _box(axes, (20, row), (14, 7), "encoder")
    _box(axes, (41, 14), (17, 7), "weight generator\nconv, sigmoid")
    _box(axes, (60, row), (15, 7), "integrate\nand fire")
    _box(axes, (81, row), (12, 7), "fired\nvectors c")
    _box(axes, (102, row), (14, 7), "decoder")
    _arrow(axes, (9, row), (13, row))
    _arrow(axes, (27, row), (52.5, row))
    note(40, row + 1.6, "frames h")
    _arrow(axes, (30, row), (30, 14), (32.5, 14))
    _arrow(axes, (49.5, 14), (60, 14), (60, row - 3.5))
    note(63.5, 17.5, "alpha")
    _arrow(axes, (67.5, row), (75, row))
    _arrow(axes, (87, row), (95, row))

    _loss(axes, (20, 4), "CTC", "loss_ctc")
    _loss(axes, (60, 4), "quantity: |Σ alpha − L|", "loss_quantity")
    _loss(axes, (102, 4), "cross-entropy", "loss_att")
    _arrow(axes, (20, row - 3.5), (20, 7))
    _arrow(axes, (60, 14), (60, 7))
    _arrow(axes, (102, row - 3.5), (102, 7))
    note(106.5, 14, "tokens")
    _arrow(axes, (116, 14), (116, row), (109, row), linestyle=":")
    note(116, 11.5, "earlier\ntokens")

    dashed = {"linestyle": "--"}
    _loss(axes, (81, 39), "ACD, contrastive", "loss_acd")
    _loss(axes, (102, 39), "LRD, regression", "loss_lrd")
    _arrow(axes, (81, row + 3.5), (81, 36), **dashed)
    note(86, 32.5, "projected")
    _arrow(axes, (102, row + 3.5), (102, 36), **dashed)
    note(107, 32.5, "projected")
    _centred(axes, 26, 51, "transcript")
    _box(
        axes, (51, 51), (27, 7), "language model (PLM)\nfrozen teacher", color=_TEACHER
    )
    _arrow(axes, (32, 51), (37.5, 51), **dashed)
    _arrow(axes, (64.5, 51), (102, 51), (102, 42), **dashed)
    _arrow(axes, (81, 51), (81, 42), **dashed)
    note(73, 53, "a vector for each token")
    note(116, 51, "dashed: in\ntraining only")


def shares(alpha: np.ndarray, n_tokens: int) -> np.ndarray:
    """Return the share of each frame in each token, ``(L, T)``."""
    ends = np.cumsum(alpha)
    begins = ends - alpha
    tokens = np.arange(n_tokens)[:, None]
    return np.maximum(0.0, np.minimum(ends, tokens + 1) - np.maximum(begins, tokens))


def draw_firing(axes: Axes) -> None:
    """Draw alpha by frames, in the colours of the tokens."""
    data = np.load(VECTORS)
    length = int(data["lengths"][UTTERANCE])
    alpha = data["alpha"][UTTERANCE, :length]
    hidden = torch.from_numpy(data["hidden"][UTTERANCE : UTTERANCE + 1, :length])
    fired = integrate_and_fire(
        hidden,
        torch.from_numpy(alpha)[None],
        torch.tensor([length]),
        tail_threshold=float(data["tail_threshold"]),
    )
    n_tokens = int(fired.lengths[0])
    times = fired.firing_times[0].numpy()
    bottom = np.zeros(length)
    for token, part in enumerate(shares(alpha, n_tokens)):
        (frames,) = np.nonzero(part)
        axes.bar(
            frames + 0.5,
            part[frames],
            width=0.92,
            bottom=bottom[frames],
            color=_TOKENS[token % 2],
        )
        bottom += part
    begins = [0.0, *times[:-1]]
    for token, (begin, end) in enumerate(zip(begins, times), start=1):
        axes.axvline(end, ymax=0.86, color=_INK, linewidth=0.9)
        axes.text((begin + end) / 2, 0.63, f"c{token}", ha="center", size=9, color=_INK)
    rest = float(alpha.sum()) - (n_tokens - 1)
    axes.text(
        length + 0.3,
        0.3,
        f"rest {rest:.2f} > 0.5:\nthe tail fires",
        size=8,
        color=_PALE,
        va="center",
    )
    axes.set_xlim(0, length + 4.5)
    axes.set_ylim(0, 0.72)
    axes.set_xlabel(
        "encoder frames; a line: a token fires, its colour sums to one", size=9
    )
    axes.set_ylabel("alpha", size=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw() -> Figure:
    """Return the complete picture."""
    figure = Figure(figsize=(10.5, 7.0), layout="constrained")
    way, firing = figure.subplots(2, 1, height_ratios=[2.6, 1.0])
    draw_way(way)
    draw_firing(firing)
    return figure


def main(out: Path = PICTURE) -> None:
    """Write the picture; deterministic."""
    with matplotlib.rc_context(
        {"svg.hashsalt": "hkd", "svg.fonttype": "none", "font.family": "sans-serif"}
    ):
        draw().savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    compact_file(out)


if __name__ == "__main__":
    main()
