"""The pictures of a matrix."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablation.cells import Epoch
from ablation.errors import FREQUENCIES, TENTHS, length_errors
from ablation.panels import INK, PALE, canvas, key, label_ends, looks, save, style
from ablation.significance import Difference
from ablation.summary import Summary, class_difference, pooled
from espnet_cif_hkd.cli.learning_curve import read_published

_BITS = 1 / math.log(2)
_TEST = "test"


def draw_all(summary: Summary, folder: Path) -> dict[str, Path]:
    """Draw all pictures for which the cells have numbers.

    Args:
        summary: a matrix with its cells.
        folder: target; the names of the files begin with the corpus.

    Returns:
        Name of the picture to its file; without empty pictures.
    """
    pictures: dict[str, Callable[[Summary], Figure | None]] = {
        "difference": lambda one: differences([one]),
        "cer": cer_by_epoch,
        "losses": losses,
        "distillation": distillation,
        "position": positions,
        "frequency": frequencies,
        "lengths": lengths,
    }
    drawn = {}
    for name, picture in pictures.items():
        path = folder / f"{summary.matrix.corpus}_{name}.svg"
        with style():
            figure = picture(summary)
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            save(figure, path)
        drawn[name] = path
    return drawn


def draw_overview(summaries: Sequence[Summary], path: Path) -> bool:
    """The picture of docs/results.md; False if there is nothing to draw."""
    with style():
        figure = differences(summaries)
        if figure is not None:
            save(figure, path)
    return figure is not None


def differences(summaries: Sequence[Summary]) -> Figure | None:
    """Difference of the test CER, with intervals and single seeds."""
    tables = [(one, _rows(one)) for one in summaries]
    tables = [(one, rows) for one, rows in tables if rows]
    if not tables:
        return None
    heights = [len(rows) + 1.2 for _, rows in tables]
    figure = Figure(figsize=(7.2, 0.9 + 0.27 * sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(tables), 1, squeeze=False, height_ratios=heights, sharex=True
    )
    for axes, (one, rows) in zip(panels.ravel(), tables):
        _forest(axes, one, rows)
        axes.set_title(one.matrix.title, color=INK)
    base = summaries[0].label(summaries[0].matrix.baseline)
    panels[-1, 0].set_xlabel(
        f"test CER minus that of {base}, points (left of 0: fewer errors)"
    )
    key(figure, panels.ravel()[:1])
    return figure


def _rows(summary: Summary) -> list[tuple[str, str, Difference]]:
    rows = []
    for system in summary.present:
        for decode in summary.matrix.decodes:
            found = summary.difference(system, decode, _TEST, "char")
            if system != summary.matrix.baseline and found is not None:
                rows.append((system, decode, found))
    return rows


def _forest(
    axes: Axes, summary: Summary, rows: Sequence[tuple[str, str, Difference]]
) -> None:
    look = looks(summary.matrix)
    axes.axvline(0, color=INK, linewidth=1)
    names = []
    for place, (system, decode, found) in enumerate(rows):
        color = look[system].color
        both, utterances = found.absolute_both, found.absolute_utterances
        if both is not None:
            axes.plot([both.low, both.high], [place] * 2, color=color, linewidth=1.2)
        axes.plot(
            [utterances.low, utterances.high],
            [place] * 2,
            color=color,
            linewidth=5,
            alpha=0.45,
            solid_capstyle="butt",
        )
        axes.plot(
            found.per_seed, [place - 0.27] * len(found.per_seed), "|", color=color
        )
        axes.plot(found.absolute, place, marker="o", markersize=6, color=color)
        names.append(f"{look[system].label} {summary.matrix.decodes[decode].label}")
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.plot([], [], "o", color=PALE, markersize=6, label="all seeds")
    axes.plot([], [], "|", color=PALE, label="one seed")
    axes.plot([], [], color=PALE, linewidth=5, alpha=0.6, label="95 % over utterances")
    if any(found.absolute_both is not None for *_, found in rows):
        axes.plot([], [], color=PALE, linewidth=1.2, label="… and seeds")


def cer_by_epoch(summary: Summary) -> Figure | None:
    """Dev CER by epoch: mean line, band from the lowest to the highest seed."""
    columns = {"cer_free": "decoder, known prefixes", "cer_ctc": "CTC, best path"}
    if not any(_curves(summary, name) for name in columns):
        return None
    figure, panels = canvas(3.3, 2)
    for axes, (name, title) in zip(panels, columns.items()):
        value = functools.partial(_of_dev, name)
        _by_epoch(figure, axes, summary, value, clipped=True)
        axes.set_title(f"dev {name}, %: {title}")
    return figure


def _curves(summary: Summary, name: str) -> bool:
    return any(
        summary.curve(system, lambda e: e.valid.get(name)) for system in summary.present
    )


def _of_dev(name: str, epoch: Epoch) -> float | None:
    """A value of validation in per cent."""
    return 100 * epoch.valid[name] if name in epoch.valid else None


def _by_epoch(
    figure: Figure,
    axes: Axes,
    summary: Summary,
    value: Callable[[Epoch], float | None],
    clipped: bool = False,
) -> None:
    """Mean line and band of each system; ``clipped`` cuts the first epochs off."""
    look = looks(summary.matrix)
    highest, ends = [], []
    for system in summary.present:
        table: dict[int, list[float]] = {}
        for curve in summary.curve(system, value):
            for epoch, number in curve:
                table.setdefault(epoch.number, []).append(number)
        if not table:
            continue
        epochs = sorted(table)
        mean = [sum(table[e]) / len(table[e]) for e in epochs]
        own = look[system]
        axes.fill_between(
            epochs,
            [min(table[e]) for e in epochs],
            [max(table[e]) for e in epochs],
            color=own.color,
            alpha=0.18,
            linewidth=0,
        )
        axes.plot(
            epochs, mean, **{**own.line, "marker": None if len(epochs) > 1 else "o"}
        )
        highest.append(max(mean[len(mean) // 6 :]))
        ends.append((epochs[-1], mean[-1], own.label, own.color))
    if highest and clipped:  # they would compress the rest of the picture
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, max(highest) * 1.05))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    label_ends(figure, axes, ends)


def losses(summary: Summary) -> Figure | None:
    """Training curves and the published ones, to compare their shape."""
    columns: dict[str, tuple[str, Callable[[Epoch], float | None]]] = {
        "train_nll": ("train nll, bits per token", lambda e: _bits(e, "nll")),
        "train_ctc": ("train CTC, bits per token", lambda e: _bits(e, "loss_ctc")),
        "train_quantity": (
            "train quantity / ln 2",
            lambda e: _bits(e, "loss_quantity"),
        ),
        "dev_error": ("dev cer_free, %", functools.partial(_of_dev, "cer_free")),
    }
    ours = {
        name: {
            s: summary.curve(s, value) for s in summary.present if _is_cif(summary, s)
        }
        for name, (_, value) in columns.items()
    }
    if not any(curves for found in ours.values() for curves in found.values()):
        return None
    published, look = read_published(), looks(summary.matrix)
    figure, panels = canvas(5.2, 2, 2)
    for axes, (name, (title, _)) in zip(panels, columns.items()):
        axes.plot(
            [point["updates"] for point in published.points],
            [point[name] for point in published.points],
            color=PALE,
            linestyle=":",
            linewidth=2.2,
            label="published CIF, AISHELL-1",
        )
        for system, curves in ours[name].items():
            table: dict[int, list[float]] = {}
            for curve in curves:
                for epoch, number in curve:
                    table.setdefault(epoch.updates, []).append(number)
            updates = sorted(table)
            axes.plot(
                updates,
                [sum(table[n]) / len(table[n]) for n in updates],
                **{**look[system].line, "marker": None},
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.set_title(title)
    for axes in panels[2:]:
        axes.set_xlabel("updates")
    key(figure, panels)
    return figure


def _is_cif(summary: Summary, system: str) -> bool:
    """Whether it has the quantity loss, like the published training."""
    return any("loss_quantity" in c.epochs[-1].train for c in summary.runs(system))


def _bits(epoch: Epoch, name: str) -> float | None:
    value = epoch.train.get(name)
    return None if value is None else _BITS * value


def distillation(summary: Summary) -> Figure | None:
    """Distillation losses on dev by epoch."""
    columns: dict[str, tuple[str, Callable[[Epoch], float | None]]] = {
        "acc_acd": (
            "dev acc_acd, %: own teacher vector nearest",
            functools.partial(_of_dev, "acc_acd"),
        ),
        "loss_lrd": ("dev loss_lrd per token", lambda e: e.valid.get("loss_lrd")),
    }
    columns = {name: one for name, one in columns.items() if _curves(summary, name)}
    if not columns:
        return None
    figure, panels = canvas(2.9, len(columns))
    for axes, (title, value) in zip(panels, columns.values()):
        _by_epoch(figure, axes, summary, value)
        axes.set_title(title)
    return figure


def positions(summary: Summary) -> Figure | None:
    """CER by tenths of the reference, and the difference from the baseline."""
    tables = _pooled(summary, "by_position")
    if not tables:
        return None
    look = looks(summary.matrix)
    figure, panels = canvas(3.1, 2)
    middles = [10 * i + 5 for i in range(len(TENTHS))]
    base = tables.get(summary.matrix.baseline)
    for system, table in tables.items():
        rates = [table.get(name, math.nan) for name in TENTHS]
        panels[0].plot(middles, rates, **look[system].line)
        if base is not None and system != summary.matrix.baseline:
            change = [table.get(n, math.nan) - base.get(n, math.nan) for n in TENTHS]
            panels[1].plot(middles, change, **look[system].line)
    panels[1].axhline(0, color=INK, linewidth=1)
    panels[0].set_title("test CER, %")
    label = summary.label(summary.matrix.baseline)
    panels[1].set_title(f"minus {label}, points")
    for axes in panels:
        axes.set_xlabel("place in the reference, %")
        axes.set_xlim(0, 100)
    key(figure, panels)
    return figure


def _pooled(summary: Summary, kind: str) -> dict[str, dict[str, float]]:
    """Class to error rate of each system."""
    tables = {}
    for system in summary.present:
        found = list(summary.scores(system, summary.first_decode, _TEST).values())
        if found:
            tables[system] = {
                name: rate
                for name, (_, rate) in pooled(found, kind).items()
                if rate is not None
            }
    return tables


def frequencies(summary: Summary) -> Figure | None:
    """Errors by frequency in training; the difference from the baseline."""
    tables = _pooled(summary, "by_frequency")
    if not tables:
        return None
    look = looks(summary.matrix)
    figure, panels = canvas(3.1, 2)
    classes = list(FREQUENCIES.values())
    places = np.arange(len(classes))
    base = summary.scores(summary.matrix.baseline, summary.first_decode, _TEST)
    others = [name for name in tables if name != summary.matrix.baseline]
    for system, table in tables.items():
        rates = [table.get(name, math.nan) for name in classes]
        panels[0].plot(places, rates, **look[system].line)
    for number, system in enumerate(others):
        shift = 0.16 * (number - (len(others) - 1) / 2)
        own = summary.scores(system, summary.first_decode, _TEST)
        found = [class_difference(base, own, "by_frequency", name) for name in classes]
        kept = [(p, f) for p, f in zip(places, found) if f is not None]
        panels[1].plot(
            [place + shift for place, _ in kept],
            [one.absolute for _, one in kept],
            **{**look[system].line, "linestyle": "none"},
        )
        panels[1].vlines(
            [place + shift for place, _ in kept],
            [one.absolute_utterances.low for _, one in kept],
            [one.absolute_utterances.high for _, one in kept],
            color=look[system].color,
            linewidth=1.2,
        )
    panels[1].axhline(0, color=INK, linewidth=1)
    unit = "words" if summary.matrix.words else "characters"
    panels[0].set_title(f"test {unit} wrong, %")
    label = summary.label(summary.matrix.baseline)
    panels[1].set_title(f"minus {label}, points, 95 % over utterances")
    for axes in panels:
        axes.set_xticks(places, classes)
        axes.set_xlabel("times in the training text")
    key(figure, panels)
    return figure


def lengths(summary: Summary, reach: int = 8) -> Figure | None:
    """Distribution of the length error in tokens, all seeds."""
    look = looks(summary.matrix)
    figure, (axes,) = canvas(2.9)
    places, ends = list(range(-reach, reach + 1)), []
    for system in summary.present:
        found = summary.scores(system, summary.first_decode, _TEST).values()
        counts: Counter[int] = Counter()
        for scores in found:
            pairs = ((int(ref), int(hyp)) for ref, hyp in scores.tokens)
            for off, number in length_errors(pairs).items():
                counts[max(-reach, min(reach, off))] += number
        if counts:
            shares = [100 * counts[place] / counts.total() for place in places]
            axes.plot(places, shares, **look[system].line)
            ends.append(system)
    if not ends:
        return None
    names = [f"{place:+d}".replace("-", "−") if place else "0" for place in places]
    names[0], names[-1] = f"≤ {names[0]}", f"≥ {names[-1]}"
    axes.set_xticks(places, names)
    axes.set_xlabel("tokens of the hypothesis minus tokens of the reference")
    axes.set_title("test utterances, %")
    axes.set_ylim(bottom=0)
    key(figure, [axes])
    return figure
