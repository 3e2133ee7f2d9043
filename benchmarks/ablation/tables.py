"""The tables of a matrix, in Markdown."""

from collections.abc import Mapping, Sequence

import numpy as np

from ablation.cells import Cell, Scores
from ablation.summary import (
    SETS,
    UNIT_NAMES,
    Summary,
    score_difference,
    scores_of,
    shown,
)
from ablation.verdict import bracket, in_a_word, signed

_LOGGED = {  # of the last epoch: phase, name, factor, digits, heading
    ("train", "loss"): (1, 3, "train loss"),
    ("valid", "loss"): (1, 3, "dev loss"),
    ("valid", "nll"): (1, 3, "dev nll"),
    ("valid", "acc"): (100, 1, "dev acc %"),
    ("valid", "cer"): (100, 1, "dev cer %"),
    ("valid", "cer_free"): (100, 1, "dev cer_free %"),
    ("valid", "cer_ctc"): (100, 1, "dev cer_ctc %"),
    ("valid", "length_error"): (100, 1, "dev length_error %"),
    ("valid", "acc_acd"): (100, 1, "dev acc_acd %"),
    ("valid", "negatives_acd"): (1, 0, "dev negatives_acd"),
}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars inside cells are escaped."""
    lines = [head, *rows]
    text = [
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    ]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]]) + "\n"


def rates(summary: Summary, decode: str) -> str:
    """Mean and standard deviation over seeds of one way of decoding."""
    columns = [(name, unit) for unit in summary.units for name in SETS]
    head = ["system", "seeds", *(f"{name} {UNIT_NAMES[u]} %" for name, u in columns)]
    head.append(f"test CER against {summary.label(summary.matrix.baseline)}, %")
    rows = []
    for system in summary.systems:
        cells = [shown(summary.rates(system, decode, *column)) for column in columns]
        count = len(summary.scores(system, decode, "test"))
        found = summary.difference(system, decode, "test", "char")
        if system == summary.matrix.baseline or found is None:
            change = "–"
        else:
            change = (
                f"{signed(found.relative)} {bracket(found.relative_utterances)} "
                f"{bracket(found.relative_both)}"
            )
        rows.append([summary.label(system), str(count), *cells, change])
    return markdown(head, rows)


def differences(summary: Summary, decode: str) -> str:
    """Every comparison with the baseline, with all intervals."""
    head = [
        *("system", "set", "rate", "points", "over utterances"),
        *("over utterances and seeds", "over seeds", "relative, %"),
        *("over utterances, %", "over utterances and seeds, %", "reads"),
    ]
    rows = []
    for system in summary.present:
        for name in reversed(SETS):
            for unit in summary.units:
                found = summary.difference(system, decode, name, unit)
                if system == summary.matrix.baseline or found is None:
                    continue
                rows.append(
                    [
                        *(summary.label(system), name, UNIT_NAMES[unit]),
                        signed(found.absolute, 2),
                        bracket(found.absolute_utterances, 2),
                        bracket(found.absolute_both, 2),
                        bracket(found.over_seeds, 2),
                        signed(found.relative),
                        bracket(found.relative_utterances),
                        bracket(found.relative_both),
                        in_a_word(found),
                    ]
                )
    return markdown(head, rows) if rows else "Nothing to compare yet.\n"


def runs(summary: Summary) -> str:
    """A row for every run."""
    columns = [
        (decode, name, unit)
        for decode in summary.matrix.decodes
        for unit in summary.units
        for name in SETS
    ]
    head = ["system", "seed", "epochs"]
    head += [
        f"{name} {UNIT_NAMES[unit]} % {summary.matrix.decodes[decode].label}"
        for decode, name, unit in columns
    ]
    rows = []
    for system in summary.systems:
        found = {cell.seed: cell for cell in summary.runs(system)}
        for seed in summary.matrix.seeds:
            row = [summary.label(system), str(seed)]
            if seed not in found:
                rows.append([*row, *["missing"] * (1 + len(columns))])
                continue
            cell = found[seed]
            row.append(str(cell.epochs[-1].number))
            for decode, name, unit in columns:
                decoded = cell.decodes.get(decode)
                scores = decoded.sets.get(name) if decoded else None
                row.append(_rate(scores, unit))
            rows.append(row)
    return markdown(head, rows)


def _rate(scores: Scores | None, unit: str) -> str:
    if scores is None or unit not in scores.errors:
        return "missing"
    return f"{scores.rate(unit):.2f}"


def cost(summary: Summary) -> str:
    """Parameters and time."""
    decodes = summary.matrix.decodes.values()
    head = ["system", "parameters, inference", "training", "epochs", "updates"]
    head += ["seconds an epoch", "hours of training"]
    head += [f"seconds of decoding {decode.label}" for decode in decodes]
    rows = []
    for system in summary.present:
        cells = summary.runs(system)
        inference = {cell.parameters["inference"] for cell in cells}
        training = {cell.parameters["training"] for cell in cells}
        row = [
            summary.label(system),
            *(", ".join(f"{n:,}" for n in sorted(ns)) for ns in (inference, training)),
            *_distinct([cell.epochs[-1].number for cell in cells]),
            *_distinct([cell.epochs[-1].updates for cell in cells]),
            shown([e.seconds for cell in cells for e in cell.epochs], 0),
            shown([sum(e.seconds for e in c.epochs) / 3600 for c in cells], 2),
        ]
        for decode in decodes:
            took = [
                c.decodes[decode.name].seconds
                for c in cells
                if decode.name in c.decodes
            ]
            row.append(shown(took, 0))
        rows.append(row)
    return markdown(head, rows)


def _distinct(values: Sequence[int]) -> list[str]:
    return [", ".join(f"{value:,}" for value in sorted(set(values)))]


def last_epoch(summary: Summary) -> str:
    """The log of the last epoch, mean and deviation over seeds.

    ESPnet's own models divide losses by utterances, ours by tokens; only the losses of
    ours are listed.
    """
    columns = [
        key
        for key in _LOGGED
        if any(key[1] in getattr(c.epochs[-1], key[0]) for c in summary.cells)
    ]
    rows = []
    for system in summary.present:
        row = [summary.label(system)]
        for phase, name in columns:
            factor, digits, _ = _LOGGED[phase, name]
            last = [
                getattr(cell.epochs[-1], phase)
                for cell in summary.runs(system)
                if name != "loss" or "loss_quantity" in cell.epochs[-1].train
            ]
            values = [
                factor * v[name] for v in last if np.isfinite(v.get(name, np.nan))
            ]
            row.append(shown(values, digits) if values else "–")
        rows.append(row)
    return markdown(["system", *(_LOGGED[key][2] for key in columns)], rows)


def variants(summary: Summary) -> str:
    """Side experiments, each with the run it is compared with."""
    head = ["what", "system", "seed", "epochs", "decoding", "dev CER %", "test CER %"]
    head += ["against", "its test CER %", "points", "over utterances", "dev acc_acd %"]
    rows = []
    for cell in summary.variants():
        assert cell.variant is not None
        accuracy = cell.epochs[-1].valid.get("acc_acd")
        other = summary.compared(cell)
        for decode, decoded in cell.decodes.items():
            difference = score_difference(
                scores_of(other, decode, "test"),
                scores_of([cell], decode, "test"),
                "char",
            )
            rows.append(
                [
                    summary.matrix.variants[cell.variant].label,
                    summary.label(cell.system),
                    str(cell.seed),
                    str(cell.epochs[-1].number),
                    summary.matrix.decodes[decode].label,
                    *(_rate(decoded.sets.get(name), "char") for name in SETS),
                    _against(summary, cell),
                    *(
                        ("–", "–", "–")
                        if difference is None
                        else (
                            f"{difference.baseline:.2f}",
                            signed(difference.absolute, 2),
                            bracket(difference.absolute_utterances, 2),
                        )
                    ),
                    "–" if accuracy is None else f"{100 * accuracy:.1f}",
                ]
            )
    return markdown(head, rows) if rows else "None was run.\n"


def _against(summary: Summary, cell: Cell) -> str:
    assert cell.variant is not None
    matrix = summary.matrix
    against = matrix.variants[cell.variant].against
    if against in matrix.systems:
        return matrix.systems[against].label
    other = matrix.variants[against]
    return f"{matrix.systems[other.system].label}, {other.label}"


def tuning(entries: Sequence[Mapping[str, object]]) -> str:
    """All settings that were tried, in the order of the file."""
    if not entries:
        return "No tuning runs are recorded.\n"
    names: list[str] = []
    for entry in entries:
        dev = entry["dev"]
        assert isinstance(dev, dict)
        names += [name for name in dev if name not in names]
    fixed = ("name", "question", "changed", "epochs", "seed", "seconds")
    rows = []
    for entry in entries:
        dev = entry["dev"]
        assert isinstance(dev, dict)
        rows.append(
            [_plain(entry.get(key)) for key in fixed]
            + [_plain(dev.get(name)) for name in names]
        )
    return markdown([*fixed, *(f"dev {name}" for name in names)], rows)


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return " ".join(str(value).split())
