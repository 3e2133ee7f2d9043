"""RESULTS.md of a recipe: everything that was measured on one corpus."""

import math
from collections.abc import Mapping, Sequence

from ablation import error_tables, tables
from ablation.significance import LEVEL, RESAMPLES, Difference
from ablation.summary import Summary, shown
from ablation.verdict import headline, sentence
from espnet_cif_hkd.cli.learning_curve import read_published

COMMAND = "python3 benchmarks/ablation/report.py"
ALT = {
    "difference": "Test CER of each system minus that of the baseline, with intervals",
    "cer": "CER on dev by epoch",
    "losses": "Training losses and dev error by updates, with the published curves",
    "distillation": "Contrastive accuracy and regression loss on dev by epoch",
    "position": "CER by position in the reference",
    "frequency": "Errors by frequency in the training text",
    "lengths": "Distribution of length errors",
}
_INTERVALS = f"""\
A negative difference means fewer errors than the baseline. All intervals have the
level {100 * LEVEL:.0f} %.

- Over utterances: paired bootstrap with {RESAMPLES:,} resamples. Each drawn utterance
  contributes its errors of all seeds of both systems. The interval says whether these
  trained models differ; it does not cover the variation between trainings.
- Over utterances and seeds: the seeds of each system are drawn as well. The interval is
  too narrow for few seeds.
- Over seeds: Student's t of the difference between the two models of each seed, with
  n − 1 degrees of freedom.

A system is called better or worse only if none of the three intervals contains 0. Each
system is compared with the baseline, without a correction for multiple comparisons.
Utterances are treated as independent, although speakers recur.
"""


def results(
    summary: Summary,
    tuned: Sequence[Mapping[str, object]],
    pictures: Mapping[str, str],
    notes: str,
) -> str:
    """RESULTS.md of one recipe.

    Args:
        summary: a matrix with its cells.
        tuned: the runs of tuning.json.
        pictures: links to the pictures by name; those not drawn are absent.
        notes: Markdown written by hand.
    """
    matrix = summary.matrix
    command = f"{COMMAND} benchmarks/ablation/{matrix.path.name}"
    wanted = len(matrix.systems) * len(matrix.seeds)
    made = len(summary.cells) - len(summary.variants())
    decode = summary.first_decode
    label = matrix.decodes[decode].label
    parts = [
        f"<!-- Made by `{command}`; edit the cells or the notes, not this file. -->\n",
        f"# Results: {matrix.title}\n",
        f"Made by `{command}` from `benchmarks/ablation/results/{matrix.corpus}/`: "
        f"{made} of {wanted} planned runs and {len(summary.variants())} side "
        "experiments. The numbers of a system include all its finished runs.\n",
        *("## In short\n", in_short(summary)),
        *([f"{notes}\n"] if notes else []),
        *("## Missing runs\n", _missing(summary)),
        "## Error rates\n",
        "Mean ± sample standard deviation over seeds. The last column is the relative "
        "change with two intervals: over utterances, and over utterances and seeds.\n",
    ]
    for one in matrix.decodes.values():
        parts += [f"{_capital(one.label)}:\n", tables.rates(summary, one.name)]
    parts += [_picture(pictures, "difference"), "## Confidence intervals\n", _INTERVALS]
    for one in matrix.decodes.values():
        parts += [f"{_capital(one.label)}:\n", tables.differences(summary, one.name)]
    parts += [
        *("## Every run\n", tables.runs(summary)),
        *("## Size and time\n", tables.cost(summary)),
        "## Training\n",
        "Lines are means over seeds, bands extend from the lowest to the highest seed. "
        "The error rates are those of the training log, not of a search: `cer_free` "
        "predicts each token from the correct tokens before it. Systems that do not "
        "log a value are left out.\n",
        _picture(pictures, "cer"),
        "The last epoch, mean ± standard deviation over seeds. Losses are listed for "
        "CIF models only, because ESPnet's own models divide the loss by the number of "
        "utterances, not of tokens.\n",
        tables.last_epoch(summary),
        *("## Comparison with the published training\n", _published(summary)),
        _picture(pictures, "losses"),
        *(
            "## Distillation losses\n",
            _distillation(pictures),
        ),
        f"## Error analysis\n\nTest set, {label}, all seeds pooled.\n",
        "CER by position in the reference, %:\n",
        error_tables.positions(summary, decode),
        _picture(pictures, "position"),
        f"{'Words' if matrix.words else 'Characters'} substituted or deleted, by "
        "frequency in the training text, %:\n",
        error_tables.frequencies(summary, decode),
        "Difference from the baseline in points, with the interval over utterances:\n",
        error_tables.frequency_differences(summary, decode),
        _picture(pictures, "frequency"),
        *_by_sound(summary, decode),
        "Length of the hypothesis minus that of the reference, in tokens:\n",
        error_tables.lengths(summary, decode),
        _picture(pictures, "lengths"),
        "## Side experiments\n",
        "One run each, compared with one other run of the same seed. The interval over "
        "utterances does not cover the variation between trainings of one system.\n",
        tables.variants(summary),
        "## Tuning\n",
        "All settings that were tried, on dev only; error rates in per cent.\n",
        tables.tuning(tuned),
        *("## Versions, data and commands\n", conditions(summary, tuned)),
    ]
    return joined(parts)


def in_short(summary: Summary) -> str:
    """The headline and a sentence for each system."""
    matrix, baseline = summary.matrix, summary.label(summary.matrix.baseline)
    rate = f"test CER {matrix.decodes[summary.first_decode].label}"
    compared = comparisons(summary, summary.contenders)
    text = f"Compared by {rate}. {headline(baseline, compared, sought(summary))}\n"
    outside = [name for name in summary.present if matrix.systems[name].outside]
    for label, found in [*compared, *comparisons(summary, outside)]:
        text += f"\n- {sentence(label, baseline, rate, found)}"
    text += "".join(f"\n- {one}" for one in against_controls(summary, rate))
    return text.rstrip("\n") + "\n"


def against_controls(summary: Summary, rate: str) -> list[str]:
    """A sentence for each system and its control."""
    return [
        sentence(summary.label(system), summary.label(control), rate, found)
        for system, control, found in summary.controlled(summary.first_decode, "test")
    ]


def sought(summary: Summary) -> int:
    systems = summary.matrix.systems.values()
    return sum(not s.outside and s.name != summary.matrix.baseline for s in systems)


def comparisons(
    summary: Summary, systems: Sequence[str]
) -> list[tuple[str, Difference]]:
    found = [
        (summary.label(s), summary.difference(s, summary.first_decode, "test", "char"))
        for s in systems
    ]
    return [(label, one) for label, one in found if one is not None]


def _missing(summary: Summary) -> str:
    lines = summary.missing()
    if not lines:
        return "None: all planned runs are trained and decoded.\n"
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _published(summary: Summary) -> str:
    """The last epoch, and the published values after the same number of updates."""
    published = read_published()
    columns = {"train_nll": ("train", "nll"), "train_ctc": ("train", "loss_ctc")}
    columns["train_quantity"] = ("train", "loss_quantity")
    columns["dev_error"] = ("valid", "cer_free")
    rows = []
    for system in summary.present:
        runs = [
            c for c in summary.runs(system) if "loss_quantity" in c.epochs[-1].train
        ]
        if not runs:
            continue
        updates = runs[0].epochs[-1].updates
        row = [summary.label(system), f"{updates:,}"]
        for column, (phase, name) in columns.items():
            factor = 100 if phase == "valid" else 1 / math.log(2)
            last = [getattr(cell.epochs[-1], phase).get(name) for cell in runs]
            values = [factor * value for value in last if value is not None]
            other = published.at(column, "updates", updates)
            row.append(shown(values, 3 if phase == "train" else 1) if values else "–")
            row.append("–" if other is None else f"{other:.3g}")
        rows.append(row)
    if not rows:
        return "No run has the losses of CIF yet.\n"
    head = ["system", "updates", "train nll", "published", "train CTC", "published"]
    head += ["train quantity / ln 2", "published", "dev cer_free %", "published"]
    return (
        f"The published CIF was trained on {published.corpus}: one run, with another "
        "batch size, so only the shape of the curves can be compared. Losses are in "
        "bits per token. Published values are those after the same number of "
        "updates.\n\n"
        f"{tables.markdown(head, rows)}"
    )


def conditions(summary: Summary, tuned: Sequence[Mapping[str, object]]) -> str:
    """Versions, hashes, and all commands."""
    cells = summary.cells
    if not cells:
        return "No run yet.\n"
    kinds = {
        **{
            key: [cell.versions.get(key) for cell in cells] for key in cells[0].versions
        },
        **{f"sha256 of {k}": [c.hashes.get(k) for c in cells] for k in cells[0].hashes},
    }
    rows = []
    for name, values in kinds.items():
        for value in dict.fromkeys(values):
            have = [c.name for c, own in zip(cells, values) if own == value]
            whose = "all" if len(have) == len(cells) else ", ".join(have)
            rows.append([name, "–" if value is None else f"`{value}`", whose])
    text = tables.markdown(["what", "value", "runs"], rows)
    folder = f"`{summary.matrix.recipe}`"
    text += f"\nCommands of each run, in the folder {folder}:\n\n```sh\n"
    for cell in cells:
        text += f"# {cell.name}\n" + "".join(f"{line}\n" for line in cell.commands)
    text += "```\n"
    commands = ""
    for entry in tuned:
        lines = entry.get("commands")
        if isinstance(lines, list):
            commands += f"# {entry['name']}\n" + "".join(f"{one}\n" for one in lines)
    if commands:
        text += f"\nCommands of the tuning runs:\n\n```sh\n{commands}```\n"
    return text


def _distillation(pictures: Mapping[str, str]) -> str:
    if "distillation" not in pictures:
        return "No run has logged a distillation loss on dev.\n"
    return (
        "`acc_acd` is the share of fired vectors that are nearer to their own teacher "
        "vector than to all negatives of the batch; with K negatives, chance is "
        "1 / (K + 1).\n\n" + _picture(pictures, "distillation")
    )


def _picture(pictures: Mapping[str, str], name: str) -> str:
    return f"![{ALT[name]}]({pictures[name]})\n" if name in pictures else ""


def _by_sound(summary: Summary, decode: str) -> list[str]:
    if summary.matrix.readings is None:
        return []
    return [
        "Wrong characters by what replaces them, % of all reference characters:\n",
        error_tables.sounds(summary, decode),
        "Difference from the baseline in points, with the interval over utterances:\n",
        error_tables.sound_differences(summary, decode),
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def joined(parts: Sequence[str]) -> str:
    return "\n".join(part for part in parts if part)
