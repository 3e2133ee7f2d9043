"""Time and memory of integrate-and-fire against frames, tokens and utterances.

    python3 benchmarks/growth.py [--figure benchmarks/growth.svg]

One of T, L, B doubles while the others are constant. The table has milliseconds and MiB
of forward and backward, with output and gradients, and for each the exponent of a power
law through all points: 1 is linear, less means that a part does not grow.
"""

import argparse
import math
import sys
from pathlib import Path

from integrate_and_fire import Shape, ours, runner
from measure import alone, describe, in_turns, medians, peak_bytes, table

BASE: Shape = (8, 1000, 256, 125)  # B, T, D, L
FACTORS = (1, 2, 4, 8)
AXES = {"T": 1, "L": 3, "B": 0}
_REPEATS = 9
_MIB = 1 << 20

Points = dict[str, dict[int, tuple[float, float]]]


def shape_of(axis: str, factor: int) -> Shape:
    values = list(BASE)
    values[AXES[axis]] *= factor
    n_batch, n_frames, n_dim, n_tokens = values
    return n_batch, n_frames, n_dim, n_tokens


def exponent(points: dict[int, float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    xs = [math.log(x) for x in points]
    ys = [math.log(y) for y in points.values()]
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    products = sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True))
    return products / sum((x - x0) ** 2 for x in xs)


def measure() -> Points:
    """Milliseconds and MiB of each axis and factor."""
    points: Points = {}
    for axis in AXES:
        ways = {str(factor): runner(ours, shape_of(axis, factor)) for factor in FACTORS}
        times = medians(in_turns(ways, _REPEATS, warm_up=2))
        points[axis] = {
            factor: (
                1000 * times[str(factor)],
                float(alone(__file__, axis, str(factor))) / _MIB,
            )
            for factor in FACTORS
        }
    return points


def draw(points: Points, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
    from compact_svg import compact_file

    plt.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none"}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    names = {"T": "frames", "L": "tokens", "B": "utterances"}
    for place, (axis, title) in enumerate(
        zip(axes, ("milliseconds", "MiB at the peak"), strict=True)
    ):
        for name, marker in zip(AXES, "os^", strict=True):
            ys = [points[name][factor][place] for factor in FACTORS]
            axis.loglog(FACTORS, ys, marker=marker, base=2, label=names[name])
        first = points["T"][1][place]
        linear = [first * factor for factor in FACTORS]
        axis.loglog(FACTORS, linear, "k:", base=2, label="linear")
        axis.set(xlabel="times as many", title=title, xticks=FACTORS)
        axis.set_xticklabels(FACTORS)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    compact_file(path)


def main() -> None:
    """Print the table, or, for :func:`alone`, the bytes of one shape."""
    line = describe()
    if len(sys.argv) == 3 and sys.argv[1] in AXES:
        shape = shape_of(sys.argv[1], int(sys.argv[2]))
        print(peak_bytes(runner(ours, shape)))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="draw the table into this file")
    args = parser.parse_args()
    print(line)
    print(f"B, T, D, L = {BASE}, one of them multiplied; milliseconds, peak MiB\n")
    points = measure()
    rows: list[list[object]] = []
    for axis, found in points.items():
        cells = [f"{ms:.1f}, {mib:.0f}" for ms, mib in found.values()]
        slopes = [exponent({f: both[i] for f, both in found.items()}) for i in (0, 1)]
        rows.append([axis, *cells, *(f"{slope:.2f}" for slope in slopes)])
    head = ["", *(f"× {factor}" for factor in FACTORS)]
    print(table([*head, "exponent of time", "of memory"], rows))
    if args.figure:
        draw(points, args.figure)


if __name__ == "__main__":
    main()
