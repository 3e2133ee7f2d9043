"""docs/results.md: the results of all corpora on one short page."""

from collections.abc import Mapping, Sequence

from ablation.pages import COMMAND, against_controls, comparisons, joined, sought
from ablation.significance import Difference
from ablation.summary import Summary, shown
from ablation.tables import markdown
from ablation.verdict import (
    Finding,
    bracket,
    find,
    headline,
    italic,
    listed,
    sentence,
    signed,
)


def reader(
    summaries: Sequence[Summary],
    picture: str | None,
    pages: Mapping[str, str],
    notes: Mapping[str, str],
    answer: str = "",
) -> str:
    """docs/results.md.

    Args:
        summaries: matrices that have cells.
        picture: link to the overview, if it was drawn.
        pages: link to the results page of the recipe by corpus.
        notes: Markdown written by hand, by corpus.
        answer: Markdown written by hand, about all of them.
    """
    parts = [
        f"<!-- Made by `{COMMAND} benchmarks/ablation/*.yaml`; do not edit. -->\n",
        "# Does distillation help?\n",
        "The paper reports one run of each system on AISHELL-1: CER 4.9 % for CIF, 4.7 "
        "with the acoustic loss (ACD), 4.5 with the linguistic one (LRD), 4.2 with "
        "both (HKD). Here the systems are trained on other speech"
        f"{_seeds(summaries)}. They differ only in these losses."
        f"{_outside(summaries)}\n",
    ]
    if not summaries:
        return joined([*parts, "Nothing has been measured yet.\n"])
    parts += [f"{answer}\n"] if answer else []
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
        markdown(head, rows),
        f"Decoded {decode}. Error rates are means ± standard deviation over the runs. "
        "The last columns are the relative change and its 95 % intervals.\n",
        f"![Test CER of each system minus that of CIF, with intervals]({picture})\n"
        if picture
        else "",
        "The thick bar is the interval over utterances: other sentences of the same "
        "kind. The thin line is the interval over utterances and seeds: other "
        "sentences and another training; it is too short for few runs. A system is "
        "called better or worse only if these two intervals and the interval over "
        "seeds exclude 0. Where no difference was shown, there may still be one "
        "within the intervals.\n",
        "All runs with and without LM, all settings tried, and the commands: "
        + ", ".join(
            f"[{summary.matrix.corpus}]({pages[summary.matrix.corpus]})"
            for summary in summaries
        )
        + ".\n",
    ]
    return joined(parts)


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
    return f" {' and '.join(known)} is listed as an external reference."


def _reader_words(summary: Summary) -> str:
    """The answer first, then its control, then the other systems."""
    baseline = summary.label(summary.matrix.baseline)
    compared = comparisons(summary, summary.contenders)
    rate = f"test CER {summary.matrix.decodes[summary.first_decode].label}"
    parts = [
        sentence(label, baseline, rate, found)
        for label, found in compared
        if label == summary.label(summary.question)
    ]
    controlled = against_controls(summary, rate)
    if len(controlled) == 1:
        parts += controlled
    parts.append(headline(baseline, compared, sought(summary)))
    if len(controlled) > 1:
        parts += _headlines_of_controls(summary)
    lacking = len(summary.missing())
    if lacking:
        parts.append(f"The matrix is incomplete: {lacking} results are missing.")
    return " ".join(filter(None, parts)).replace("**", "")


def _headlines_of_controls(summary: Summary) -> list[str]:
    """A sentence or a list for each control."""
    groups: dict[str, list[tuple[str, Difference]]] = {}
    for system, control, found in summary.controlled(summary.first_decode, "test"):
        groups.setdefault(control, []).append((summary.label(system), found))
    texts = []
    for name, some in groups.items():
        control = summary.label(name)
        if any(find(found) in (Finding.SHOWN, Finding.ONE_SEED) for _, found in some):
            texts.append(headline(control, some, len(some)))
        else:
            systems = listed([label for label, _ in some])
            texts.append(f"No difference from {italic(control)} was shown: {systems}.")
    return texts


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
