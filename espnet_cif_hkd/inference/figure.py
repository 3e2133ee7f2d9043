"""Draw one utterance: waveform, alpha, firing times and tokens."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.fonts import families
from espnet_cif_hkd.io.atomic import replacing

FloatArray = npt.NDArray[np.floating]

_WAVE = "#7a8793"
_ALPHA = "#2b6cb0"
_SUM = "#b7c9dd"
_FIRE = "#d1495b"
_TEXT_COLUMNS = 110
_INCHES_PER_SECOND = 3.2
_ROTATE_ABOVE = 2.0
_POINTS_PER_FRAME = 20


@dataclass
class Alignment:
    """Content of a picture.

    Attributes:
        samples: The waveform, ``(S,)``.
        rate: Its sampling rate in Hz.
        alpha: Weight of each encoder frame, ``(T,)``.
        edges: Begin of each frame and end of the last one in seconds, ``(T + 1,)``.
        firing_times: Firing time of each token in seconds, ``(L,)``.
        tokens: The decoded tokens, ``<eos>`` excluded.
        hypothesis: The decoded text.
        reference: The reference text, if known.
    """

    samples: FloatArray
    rate: int
    alpha: FloatArray
    edges: FloatArray
    firing_times: FloatArray
    tokens: list[str]
    hypothesis: str
    reference: str | None = None

    @property
    def seconds(self) -> float:
        """Duration of the utterance."""
        return len(self.samples) / self.rate


def labels_of(alignment: Alignment) -> list[tuple[float, float, str]]:
    """Return (begin, end, label) in seconds for each fired vector.

    Vector k belongs to token k. The vector after the last token is ``<eos>``; further
    vectors have no label.
    """
    names = [_readable(token) for token in alignment.tokens] + ["eos"]
    begins = [0.0, *alignment.firing_times.tolist()]
    spans = []
    for index, end in enumerate(alignment.firing_times.tolist()):
        label = names[index] if index < len(names) else ""
        spans.append((begins[index], end, label))
    return spans


def running_sum(alignment: Alignment) -> tuple[FloatArray, FloatArray]:
    """Return times in seconds and the sum of alpha since the last firing, 0 to 1.

    The sum is NaN at each firing, so that the line is interrupted.
    """
    n_frames = len(alignment.alpha)
    positions = np.linspace(0.0, n_frames, n_frames * _POINTS_PER_FRAME + 1)
    borders = np.arange(n_frames + 1)
    total = np.interp(positions, borders, np.append(0.0, np.cumsum(alignment.alpha)))
    since = np.mod(total, 1.0)
    since[1:][np.diff(np.floor(total)) > 0] = np.nan
    return np.interp(positions, borders, alignment.edges), since


def _readable(token: str) -> str:
    if token in ("<space>", "▁"):
        return "␣"
    return token.replace("▁", "␣")


def _text(name: str, text: str) -> str:
    return textwrap.fill(
        f"{name}  {text or '(nothing)'}", _TEXT_COLUMNS, subsequent_indent="          "
    )


def draw(alignment: Alignment, out: Path) -> None:
    """Write the picture as PNG; the file appears only when it is complete.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "pictures need matplotlib: pip install matplotlib, and run this again"
        ) from None
    width = min(max(9.0, alignment.seconds * _INCHES_PER_SECOND), 40.0)
    figure = Figure(figsize=(width, 5.0), dpi=110, layout="constrained")
    wave, weights = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, 1.6])

    times = np.arange(len(alignment.samples)) / alignment.rate
    wave.plot(times, alignment.samples, color=_WAVE, linewidth=0.5)
    wave.set_ylabel("waveform")
    wave.set_yticks([])

    top = max(1.0, float(alignment.alpha.max(initial=0.0))) * 1.2
    weights.plot(*running_sum(alignment), color=_SUM, linewidth=1.2)
    weights.stairs(
        alignment.alpha, alignment.edges, fill=True, color=_ALPHA, alpha=0.75
    )
    weights.set_ylim(0.0, top)
    weights.set_ylabel("alpha")
    weights.set_xlabel("seconds")
    names = [label for _, _, label in labels_of(alignment)]
    written = "".join([*names, alignment.hypothesis, alignment.reference or ""])
    plain, even = (
        families(name, written) for name in ("DejaVu Sans", "DejaVu Sans Mono")
    )
    rotate = sum(map(len, names)) > _ROTATE_ABOVE * max(1, len(names))
    for begin, end, label in labels_of(alignment):
        wave.axvline(end, color=_FIRE, linewidth=0.6, alpha=0.45)
        weights.axvline(end, color=_FIRE, linewidth=0.8)
        weights.text(
            (begin + end) / 2,
            top * 0.985,
            label,
            ha="center",
            va="top",
            rotation=90 if rotate else 0,
            fontsize=8 if label == "eos" else 10,
            style="italic" if label == "eos" else "normal",
            family=plain,
        )
    wave.set_xlim(0.0, alignment.seconds)
    for axes in (wave, weights):
        axes.spines[["top", "right"]].set_visible(False)

    lines = [_text("decoded  ", alignment.hypothesis)]
    if alignment.reference is not None:
        lines.insert(0, _text("reference", alignment.reference))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", family=even, size=10)
    figure.text(
        0.995,
        0.005,
        "blue: alpha   pale: its sum since the last firing   red: a token fires",
        ha="right",
        size=8,
        color=_WAVE,
    )
    with replacing(out) as part:
        figure.savefig(part, format="png")
