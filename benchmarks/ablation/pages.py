"""The two pages: RESULTS.md of a recipe, and docs/results.md for readers."""

import math
from collections.abc import Mapping, Sequence

from ablation import tables
from ablation.significance import LEVEL, RESAMPLES, Difference
from ablation.summary import Summary, shown
from ablation.verdict import bracket, headline, sentence, signed
from espnet_cif_hkd.cli.learning_curve import read_published

_COMMAND = "python3 benchmarks/ablation/report.py"
ALT = {
    "difference": "Test CER of each system minus that of the baseline, with intervals",
    "cer": "CER on dev by epoch",
    "losses": "Training losses and dev error by updates, beside the published ones",
    "distillation": "Contrastive accuracy and regression loss on dev by epoch",
    "position": "CER by place in the reference",
    "frequency": "Errors by how often the training text has the word",
    "lengths": "Distribution of length errors",
}
_INTERVALS = f"""\
Below 0 is fewer errors than the baseline. All intervals are of {100 * LEVEL:.0f} %.

- Over utterances: paired bootstrap, {RESAMPLES:,} resamples; every drawn utterance
  brings its errors of all seeds of both systems. It tells whether these trained models
  differ, and is blind to what another training would give.
- Over utterances and seeds: the seeds of each system are drawn as well. Few seeds make
  it too narrow.
- Over seeds: Student's t of the differences of each seed's two models, n − 1 degrees of
  freedom.

A system is called better or worse only if none of the three contains 0. Systems are
compared one by one with the baseline, without a correction for their number; utterances
count as independent, though speakers recur.
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
    command = f"{_COMMAND} benchmarks/ablation/{matrix.path.name}"
    wanted = len(matrix.systems) * len(matrix.seeds)
    made = len(summary.cells) - len(summary.variants())
    decode = summary.first_decode
    label = matrix.decodes[decode].label
    parts = [
        f"<!-- Made by `{command}`; change cells or notes, not this file. -->\n",
        f"# Results: {matrix.title}\n",
        f"Made by `{command}` from `benchmarks/ablation/results/{matrix.corpus}/`, "
        f"which has {made} of the {wanted} runs planned and side experiments "
        f"({len(summary.variants())}). Every finished run is in all numbers of its "
        "system.\n",
        *("## In short\n", in_short(summary)),
        *([f"{notes}\n"] if notes else []),
        *("## Missing\n", _missing(summary)),
        "## Error rates\n",
        "Mean ± sample standard deviation over seeds. The last column is the relative "
        "change with its intervals over utterances, and over utterances and seeds.\n",
    ]
    for one in matrix.decodes.values():
        parts += [f"{_capital(one.label)}:\n", tables.rates(summary, one.name)]
    parts += [_picture(pictures, "difference"), "## How sure\n", _INTERVALS]
    for one in matrix.decodes.values():
        parts += [f"{_capital(one.label)}:\n", tables.differences(summary, one.name)]
    parts += [
        *("## Every run\n", tables.runs(summary)),
        *("## Size and time\n", tables.cost(summary)),
        "## Training\n",
        "Line: mean over seeds; band: from the lowest to the highest. The rates are of "
        "the log and not of a search: `cer_free` predicts each token after the known "
        "ones before it. A system without the value is not drawn.\n",
        _picture(pictures, "cer"),
        "The last epoch, mean ± standard deviation over seeds; losses of CIF models "
        "only, because ESPnet's own models divide them by utterances, not by tokens:\n",
        tables.last_epoch(summary),
        *("## Beside the published training\n", _published(summary)),
        _picture(pictures, "losses"),
        *(
            "## What the distillation losses learn\n",
            _distillation(pictures),
        ),
        f"## Where the errors are\n\nTest, {label}, all seeds pooled.\n",
        "CER by the place in the reference, %:\n",
        tables.positions(summary, decode),
        _picture(pictures, "position"),
        f"{'Words' if matrix.words else 'Characters'} substituted or deleted, by how "
        "often the training text has them, %:\n",
        tables.frequencies(summary, decode),
        "The same minus the baseline, points, with the interval over utterances (over "
        "seeds where it says so):\n",
        tables.frequency_differences(summary, decode),
        _picture(pictures, "frequency"),
        *_by_sound(summary, decode),
        "Length of the hypothesis against the reference, in tokens, by utterance:\n",
        tables.lengths(summary, decode),
        _picture(pictures, "lengths"),
        "## Side experiments\n",
        "One run each, against one other run of the same seed. The interval is over "
        "utterances and knows nothing of how far two trainings of the same system lie "
        "apart.\n",
        tables.variants(summary),
        "## Tuning\n",
        "All that was tried, on dev only, error rates in per cent.\n",
        tables.tuning(tuned),
        *("## Versions, data, commands\n", conditions(summary, tuned)),
    ]
    return _joined(parts)


def in_short(summary: Summary) -> str:
    """The headline and a sentence for each system."""
    matrix, baseline = summary.matrix, summary.label(summary.matrix.baseline)
    rate = f"test CER {matrix.decodes[summary.first_decode].label}"
    compared = _compared(summary, summary.contenders)
    text = f"By {rate}: {_lower(headline(baseline, compared, _sought(summary)))}\n"
    outside = [name for name in summary.present if matrix.systems[name].outside]
    for label, found in [*compared, *_compared(summary, outside)]:
        text += f"\n- {sentence(label, baseline, rate, found)}"
    control = _against_control(summary, rate)
    text += f"\n- {control}" if control else ""
    return text.rstrip("\n") + "\n"


def _against_control(summary: Summary, rate: str) -> str | None:
    control = summary.matrix.control
    found = summary.against_control(summary.first_decode, "test")
    if control is None or found is None:
        return None
    question, other = map(summary.label, (summary.question, control))
    return sentence(question, other, rate, found)


def _sought(summary: Summary) -> int:
    systems = summary.matrix.systems.values()
    return sum(not s.outside and s.name != summary.matrix.baseline for s in systems)


def _compared(summary: Summary, systems: Sequence[str]) -> list[tuple[str, Difference]]:
    found = [
        (summary.label(s), summary.difference(s, summary.first_decode, "test", "char"))
        for s in systems
    ]
    return [(label, one) for label, one in found if one is not None]


def _missing(summary: Summary) -> str:
    lines = summary.missing()
    if not lines:
        return "Nothing: every planned run has been made and decoded in every way.\n"
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _published(summary: Summary) -> str:
    """The last epoch beside the published values after as many updates."""
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
        f"The published CIF was trained on {published.corpus}, one run, with batches "
        "of another size; only the shape can be compared. Losses are in bits per "
        "token; published values are those after as many updates.\n\n"
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
    text += f"\nCommands of each run, given in {folder}:\n\n```sh\n"
    for cell in cells:
        text += f"# {cell.name}\n" + "".join(f"{line}\n" for line in cell.commands)
    text += "```\n"
    commands = ""
    for entry in tuned:
        lines = entry.get("commands")
        if isinstance(lines, list):
            commands += f"# {entry['name']}\n" + "".join(f"{one}\n" for one in lines)
    if commands:
        text += f"\nOf the tuning:\n\n```sh\n{commands}```\n"
    return text


def reader(
    summaries: Sequence[Summary],
    picture: str | None,
    recipes: Mapping[str, str],
    notes: Mapping[str, str],
) -> str:
    """docs/results.md.

    Args:
        summaries: matrices that have cells.
        picture: link to the overview, if it was drawn.
        recipes: link to the recipe's folder by corpus.
        notes: what is written by hand, by corpus.
    """
    parts = [
        f"<!-- Made by `{_COMMAND} benchmarks/ablation/*.yaml`; change that, not this. "
        "-->\n",
        "# Does distillation help?\n",
        "The paper reports one run of each system on AISHELL-1: CER 4.9 % for CIF, 4.7 "
        "with the acoustic loss (ACD), 4.5 with the linguistic one (LRD), 4.2 with "
        "both (HKD). Here they are trained on other speech"
        f"{_seeds(summaries)}, and differ in nothing but these losses."
        f"{_outside(summaries)}\n",
    ]
    if not summaries:
        return _joined([*parts, "Nothing has been measured yet.\n"])
    rows: list[list[str]] = []
    for summary in summaries:
        matrix = summary.matrix
        parts += [f"**{matrix.title}.** {_reader_words(summary)}\n"]
        own = notes.get(matrix.corpus, "").strip()
        parts += [f"{own}\n"] if own else []
        rows += _reader_rows(summary)
    head = ["corpus", "system", "runs", "test CER %"]
    words = any(summary.units == ("char", "word") for summary in summaries)
    head += ["test WER %"] if words else []
    head += ["CER against CIF, %", "over utterances", "and seeds"]
    if not words:
        rows = [[*row[:4], *row[5:]] for row in rows]
    decode = summaries[0].matrix.decodes[summaries[0].first_decode].label
    parts += [
        tables.markdown(head, rows),
        f"Decoded {decode}; mean ± standard deviation over the runs; the change with "
        "its 95 % intervals.\n",
        f"![Test CER of each system minus that of CIF, with intervals]({picture})\n"
        if picture
        else "",
        "The thick bar is what other sentences of the same kind would do to the "
        "difference, the thin line what other sentences and another training would; "
        "with few runs the line is too short. A system is called better or worse only "
        "if both, and the interval over the seeds alone, leave out 0. Where no "
        "difference was shown, there may still be one as large as the intervals are "
        "wide.\n",
        "All runs, with and without LM, settings tried, commands: "
        + ", ".join(
            f"[{summary.matrix.corpus}]({recipes[summary.matrix.corpus]}/RESULTS.md)"
            for summary in summaries
        )
        + ".\n",
    ]
    return _joined(parts)


def _seeds(summaries: Sequence[Summary]) -> str:
    runs = [len(one.runs(name)) for one in summaries for name in one.present]
    if not runs:
        return ""
    if min(runs) < max(runs):
        return f", each with {min(runs)} to {max(runs)} seeds"
    return f", each with {runs[0]} seed{'s' if runs[0] > 1 else ''}"


def _outside(summaries: Sequence[Summary]) -> str:
    names = [
        summary.label(name)
        for summary in summaries
        for name in summary.present
        if summary.matrix.systems[name].outside
    ]
    known = list(dict.fromkeys(names))
    if not known:
        return ""
    return f" Beside them stands, as a reference from outside, {' and '.join(known)}."


def _reader_words(summary: Summary) -> str:
    """The answer first, then its control, then the other systems."""
    baseline = summary.label(summary.matrix.baseline)
    compared = _compared(summary, summary.contenders)
    rate = f"test CER {summary.matrix.decodes[summary.first_decode].label}"
    parts = [
        sentence(label, baseline, rate, found)
        for label, found in compared
        if label == summary.label(summary.question)
    ]
    parts.append(_against_control(summary, rate) or "")
    parts.append(headline(baseline, compared, _sought(summary)))
    lacking = len(summary.missing())
    if lacking:
        parts.append(f"The matrix is not complete: {lacking} results are missing.")
    return " ".join(filter(None, parts)).replace("**", "")


def _reader_rows(summary: Summary) -> list[list[str]]:
    rows = []
    for system in summary.present:
        decode = summary.first_decode
        found = summary.difference(system, decode, "test", "char")
        change = ["–", "–", "–"]
        if system != summary.matrix.baseline and found is not None:
            change = [
                signed(found.relative),
                bracket(found.relative_utterances),
                bracket(found.relative_both),
            ]
        rates = {u: summary.rates(system, decode, "test", u) for u in summary.units}
        rows.append(
            [
                summary.matrix.corpus,
                summary.label(system),
                str(len(rates["char"])),
                shown(rates["char"]),
                shown(rates["word"]) if "word" in rates else "–",
                *change,
            ]
        )
    return rows


def _distillation(pictures: Mapping[str, str]) -> str:
    if "distillation" not in pictures:
        return "No run has logged a distillation loss on dev.\n"
    return (
        "`acc_acd`: how often a fired vector is nearer to its own teacher vector than "
        "to all negatives of its batch, so by chance one in their number plus one.\n\n"
        + _picture(pictures, "distillation")
    )


def _picture(pictures: Mapping[str, str], name: str) -> str:
    return f"![{ALT[name]}]({pictures[name]})\n" if name in pictures else ""


def _by_sound(summary: Summary, decode: str) -> list[str]:
    if summary.matrix.readings is None:
        return []
    return [
        "What stands instead of a character, % of all characters of the reference:\n",
        tables.sounds(summary, decode),
        "The same minus the baseline, points, with the interval over utterances:\n",
        tables.sound_differences(summary, decode),
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _lower(text: str) -> str:
    """For the middle of a sentence; names of systems stay as they are."""
    return text[0].lower() + text[1:] if text.startswith("Nothing") else text


def _joined(parts: Sequence[str]) -> str:
    return "\n".join(part for part in parts if part)
