#!/usr/bin/env python3
"""Draw docs/soft_labels.svg: levels of soft labels, and how units get their frames.

    python3 tools/draw_soft_labels.py

The lower half is computed for one word of four phones: by the functions of the
criterion, from spans, from the scores of a CTC head and from weights of a CIF head.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from compact_svg import compact_file  # noqa: E402
from draw_hkd import _LOSS, _PALE, _TEACHER, _arrow, _box, _centred, shares  # noqa: E402

from espnet_cif_hkd.cif.times import FrameTimes  # noqa: E402
from espnet_cif_hkd.losses.ctc_alignment import ctc_alignment  # noqa: E402
from espnet_cif_hkd.teachers.lm.spans import units_of_frames  # noqa: E402

PICTURE = ROOT / "docs/soft_labels.svg"
LEVELS = {
    "phone": ("layer:2", "map: alignment", "loss_phone_soft\nloss_phone_hard"),
    "char": ("layer:4", "map: ctc", "loss_char_soft\nloss_char_hard"),
    "bpe": (
        "layer:6",
        "map: cif",
        "loss_bpe_soft\nloss_bpe_hard\nloss_bpe_quantity",
    ),
}
PHONES = ("W", "ER", "L", "D")
_COLOURS = ("#2b6cb0", "#e0a03c", "#4d9078", "#b5546c")

# One word of 18 frames, 40 ms apart: spans in seconds; the phones, in CTC's order of
# probability, that the frames show (-1: blank); weights of the frames.
TIMES = FrameTimes(0.03, 0.04)
SPANS = torch.tensor([[0.05, 0.17], [0.17, 0.42], [0.42, 0.53], [0.54, 0.68]])
SHOWN = (-1, -1, 0, -1, -1, 1, 1, -1, -1, -1, 2, -1, -1, 3, -1, -1, -1, -1)
ALPHA = (
    *(0.05, 0.25, 0.45, 0.25, 0.15, 0.2, 0.25, 0.2, 0.15, 0.1),
    *(0.35, 0.4, 0.25, 0.45, 0.3, 0.15, 0.05, 0.0),
)


def alignment_units() -> np.ndarray:
    """Return the phone of each frame by the spans, (T,); -1: none."""
    return units_of_frames(SPANS, TIMES, len(SHOWN)).numpy()


def ctc_units() -> np.ndarray:
    """Return the phone of each frame on the path of the CTC head, (T,)."""
    shown = torch.tensor([[phone + 1 for phone in SHOWN]])
    logp = (4.0 * torch.nn.functional.one_hot(shown, 5)).log_softmax(-1)
    targets = torch.arange(1, 5)[None]
    frames, units = torch.tensor([len(SHOWN)]), torch.tensor([4])
    return ctc_alignment(logp, frames, targets, units)[0].numpy()


def cif_shares() -> np.ndarray:
    """Return the weight of each frame in each phone, (4, T); a row sums to 1."""
    alpha = np.array(ALPHA)
    return shares(alpha * len(PHONES) / alpha.sum(), len(PHONES))


def draw_levels(axes: Axes) -> None:
    """Draw the encoder, its taps, the heads and the language models."""
    axes.set_xlim(0, 120)
    axes.set_ylim(0, 62)
    axes.axis("off")
    dashed = {"linestyle": "--"}
    _centred(axes, 12, 3, "speech")
    _arrow(axes, (12, 5), (12, 9))
    _box(axes, (12, 31), (14, 44), "encoder\n(6 layers)")
    _arrow(axes, (12, 53), (12, 58), (25, 58))
    _box(axes, (38, 58), (26, 6.5), "recogniser's own output\nCIF, attention")
    _arrow(axes, (51, 58), (92, 58))
    interpolated = "(1 − c) hard + c soft\ninterpolation: c"
    _box(axes, (105, 58), (26, 6.5), interpolated, color=_LOSS)
    heights = dict(zip(LEVELS, (15, 29, 43)))
    for name, (tap, way, losses) in LEVELS.items():
        y = heights[name]
        _arrow(axes, (19, y), (31, y), **dashed)
        _centred(axes, 25, y + 2, f'tap: "{tap}"', 8, _PALE)
        _box(axes, (43, y), (24, 8), f"level {name}\n{way}", linestyle="--")
        _arrow(axes, (55, y), (92, y), **dashed)
        _box(axes, (105, y), (26, 8.5), losses, color=_LOSS, linestyle="--")
        lm = f"LM of {name} units\nfrozen; or its store"
        _box(axes, (74, y + 4.6), (24, 5.6), lm, color=_TEACHER)
        _centred(axes, 74, y - 1.8, "top-K probabilities", 8, _PALE)
    _centred(
        axes, 60, 5, "dashed: in training only; decoding opens none of it", 8, _PALE
    )


def draw_frames(axes: Axes) -> None:
    """Draw which frame learns which phone, for the three ways."""
    n_frames = len(SHOWN)
    rows = {"alignment": alignment_units(), "ctc": ctc_units()}
    for number, (name, units) in enumerate(rows.items()):
        bottom = 2.6 - 1.3 * number
        axes.text(-0.4, bottom + 0.4, f"map: {name}", ha="right", size=9)
        for frame, unit in enumerate(units):
            colour = "#eef1f4" if unit < 0 else _COLOURS[unit]
            axes.bar(frame + 0.5, 0.9, width=0.92, bottom=bottom, color=colour)
    weights = cif_shares()
    largest = weights.sum(0).max()
    axes.text(-0.4, 0.4, "map: cif", ha="right", size=9)
    below = np.zeros(n_frames)
    for unit, part in enumerate(weights / largest * 0.9):
        (frames,) = np.nonzero(part)
        heights = part[frames]
        colour = _COLOURS[unit]
        axes.bar(frames + 0.5, heights, width=0.92, bottom=below[frames], color=colour)
        below += part
    for unit, phone in enumerate(PHONES):
        axes.bar(3.5 + 3 * unit, 0.3, width=0.6, bottom=3.85, color=_COLOURS[unit])
        axes.text(4.1 + 3 * unit, 3.85, phone, size=9)
    axes.set_xlim(-4.5, n_frames + 0.5)
    axes.set_ylim(0, 4.3)
    axes.set_yticks([])
    axes.set_xticks([0, 5, 10, 15])
    axes.tick_params(labelsize=8)
    axes.set_xlabel(
        "frames of the tap; grey frames learn no soft label; cif: height is the weight",
        size=9,
    )
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw() -> Figure:
    """Return the complete picture."""
    figure = Figure(figsize=(10.5, 8.0), layout="constrained")
    levels, frames = figure.subplots(2, 1, height_ratios=[2.4, 1.0])
    draw_levels(levels)
    draw_frames(frames)
    return figure


def main(out: Path = PICTURE) -> None:
    """Write the picture; deterministic."""
    with matplotlib.rc_context(
        {"svg.hashsalt": "soft", "svg.fonttype": "none", "font.family": "sans-serif"}
    ):
        draw().savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    compact_file(out)


if __name__ == "__main__":
    main()
