"""Tables of where the errors are: by position, frequency, sound and length."""

from collections.abc import Mapping

import numpy as np

from ablation.errors import FREQUENCIES, SOUNDS
from ablation.summary import Summary, class_difference, pooled, shown
from ablation.tables import markdown
from ablation.verdict import bracket, signed


def positions(summary: Summary, decode: str) -> str:
    """Errors by tenths of the reference."""
    return _classes(summary, decode, "by_position", "tenth of the reference")


def frequencies(summary: Summary, decode: str) -> str:
    """Errors by frequency in training."""
    return _classes(summary, decode, "by_frequency", "occurrences in the training text")


def sounds(summary: Summary, decode: str) -> str:
    """Errors by what replaces the character."""
    title = "replaced by"
    return _classes(summary, decode, "by_sound", title, SOUNDS)


def _classes(
    summary: Summary,
    decode: str,
    kind: str,
    title: str,
    words: Mapping[str, str] | None = None,
) -> str:
    """Errors by class; ``words`` describe a class whose name is too short."""
    tables = {}
    for system in summary.present:
        table = pooled(summary.scores(system, decode, "test").values(), kind)
        if table:
            tables[system] = table
    if not tables:
        return "Not analysed yet.\n"
    rows = []
    for name, (tokens, _) in next(iter(tables.values())).items():
        row = [words[name] if words else name, f"{tokens:,}"]
        for table in tables.values():
            rate = table[name][1] if name in table else None
            row.append("–" if rate is None else f"{rate:.1f}")
        rows.append(row)
    return markdown([title, "tokens", *map(summary.label, tables)], rows)


def frequency_differences(summary: Summary, decode: str) -> str:
    """Differences by frequency in training."""
    classes = {name: name for name in FREQUENCIES.values()}
    title = "occurrences in the training text"
    return _class_differences(summary, decode, "by_frequency", title, classes)


def sound_differences(summary: Summary, decode: str) -> str:
    """Differences by what replaces the character."""
    title = "replaced by"
    return _class_differences(summary, decode, "by_sound", title, SOUNDS)


def _class_differences(
    summary: Summary, decode: str, kind: str, title: str, classes: Mapping[str, str]
) -> str:
    """Difference from the baseline in points by class, with intervals."""
    pairs = [
        (system, summary.matrix.baseline)
        for system in summary.present
        if system != summary.matrix.baseline
    ]
    pairs += summary.matrix.controls
    rows = []
    for system, other in pairs:
        found, base = (summary.scores(s, decode, "test") for s in (system, other))
        if not set(found) & set(base):
            continue
        label = summary.label(system)
        if other != summary.matrix.baseline:
            label += f" minus {summary.label(other)}"
        row = [label]
        for name in classes:
            difference = class_difference(base, found, kind, name)
            if difference is None:
                row.append("–")
                continue
            interval = bracket(difference.absolute_utterances)
            row.append(f"{signed(difference.absolute)} {interval}")
        rows.append(row)
    if not rows:
        return "Nothing to compare yet.\n"
    return markdown([title, *classes.values()], rows)


def lengths(summary: Summary, decode: str) -> str:
    """Tokens of the hypothesis minus tokens of the reference, on test."""
    head = ["system", "too short %", "right %", "too long %", "mean, tokens"]
    head.append("sum of absolute / reference %")
    rows = []
    for system in summary.present:
        found = summary.scores(system, decode, "test").values()
        if not found:
            continue
        tokens = np.stack([scores.tokens for scores in found])
        off = tokens[:, :, 1] - tokens[:, :, 0]
        per_run = 100 * np.abs(off).sum(1) / tokens[:, :, 0].sum(1)
        rows.append(
            [
                summary.label(system),
                *(shown((100 * side.mean(1)).tolist()) for side in _sides(off)),
                shown(off.mean(1).tolist(), 2),
                shown(per_run.tolist()),
            ]
        )
    return markdown(head, rows) if rows else "Not decoded yet.\n"


def _sides(off: "np.ndarray") -> tuple["np.ndarray", ...]:
    return off < 0, off == 0, off > 0
