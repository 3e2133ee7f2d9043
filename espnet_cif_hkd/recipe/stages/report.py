"""The files that scoring leaves: ``result.txt`` like sclite's, ``RESULTS.md``."""

import importlib.metadata
import math
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.recipe.stages.sclite import Alignment

_COLUMNS = ("Corr", "Sub", "Del", "Ins", "Err", "S.Err")


@dataclass(frozen=True)
class ScoredUtterance:
    """One utterance's alignment."""

    speaker: str
    utterance: str
    alignment: Alignment


@dataclass(frozen=True)
class Sums:
    """Counts over some utterances."""

    sentences: int
    words: int
    counts: tuple[int, int, int, int, int, int]

    def percentages(self) -> list[float]:
        """Per cent of the words; of the sentences for the last column.

        To one place, halves upwards in sclite's own arithmetic: 1 of 16 is 6.3.
        """
        wholes = [self.words] * (len(self.counts) - 1) + [self.sentences]
        return [
            math.floor(n / whole * 100 * 10 + 0.5) / 10 if whole else 0.0
            for n, whole in zip(self.counts, wholes)
        ]


def sums(utterances: Sequence[ScoredUtterance]) -> Sums:
    """Add up correct, substituted, deleted, inserted, errors, wrong sentences."""
    found = [item.alignment for item in utterances]
    return Sums(
        len(found),
        sum(one.n_ref for one in found),
        (
            sum(one.correct for one in found),
            sum(one.substituted for one in found),
            sum(one.deleted for one in found),
            sum(one.inserted for one in found),
            sum(one.errors for one in found),
            sum(one.errors > 0 for one in found),
        ),
    )


def _row(name: str, width: int, total: Sums, percent: bool) -> str:
    if percent:
        cells = [f"{value:6.1f}" for value in total.percentages()]
    else:
        cells = [f"{value:6d}" for value in total.counts]
    head = f"| {name:<{width}}| {total.sentences:5d} {total.words:7d} |"
    return head + " ".join(cells) + " |"


def _table(
    title: str, groups: dict[str, Sums], total: Sums, label: str, percent: bool
) -> list[str]:
    width = max([len(name) for name in groups] + [len(label), 4]) + 1
    heading = " ".join(f"{name:>6}" for name in _COLUMNS)
    head = f"| {'SPKR':<{width}}| # Snt   # Wrd |{heading} |"
    rule = "|" + "-" * (len(head) - 2) + "|"
    rows = [_row(name, width, one, percent) for name, one in groups.items()]
    return [
        *(title, "", rule, head, rule, *rows, rule),
        *(_row(label, width, total, percent), rule, ""),
    ]


def summary_row(utterances: Sequence[ScoredUtterance]) -> str:
    """The totals in words, for the terminal."""
    total = sums(utterances)
    cells = zip(_COLUMNS, total.percentages())
    shown = ", ".join(f"{name} {value:.1f}" for name, value in cells)
    return f"{total.sentences} sentences, {total.words} units: {shown}"


def _aligned(item: ScoredUtterance) -> list[str]:
    found = item.alignment
    lines: tuple[list[str], list[str], list[str]] = ([], [], [])
    for ref, hyp in found.pairs:
        if ref is None or hyp is None:
            mark = "I" if ref is None else "D"
        else:
            same = ref.lower() == hyp.lower()
            mark = " " if same else "S"
        cells = (
            *(ref if ref is not None else "*", hyp if hyp is not None else "*"),
            mark,
        )
        width = max(map(len, cells))
        for line, cell in zip(lines, cells):
            line.append(f"{cell:<{width}}")
    return [
        f"id: ({item.speaker}-{item.utterance})",
        f"Scores: (#C #S #D #I) {found.correct} {found.substituted} "
        f"{found.deleted} {found.inserted}",
        *("REF:  " + " ".join(lines[0]), "HYP:  " + " ".join(lines[1])),
        *("Eval: " + " ".join(lines[2]), ""),
    ]


def result_text(utterances: Sequence[ScoredUtterance], name: str) -> str:
    """The text of ``result.txt``: sums by speaker, then every alignment.

    The line with ``Sum/Avg`` has the columns of sclite's, so that ESPnet's
    ``show_asr_result.sh`` reads it.
    """
    speakers: dict[str, list[ScoredUtterance]] = {}
    for item in utterances:
        speakers.setdefault(item.speaker, []).append(item)
    groups = {speaker: sums(items) for speaker, items in speakers.items()}
    total = sums(utterances)
    lines = [f"Scores of {name}", ""]
    lines += _table("Per cent by speaker", groups, total, "Sum/Avg", True)
    lines += _table("Counts by speaker", groups, total, "Sum", False)
    for item in utterances:
        lines += _aligned(item)
    return "\n".join(lines) + "\n"


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return result.stdout.strip()


def _environment() -> list[str]:
    import torch

    python = " ".join(sys.version.split())
    espnet = importlib.metadata.version("espnet")
    lines = [
        "<!-- Generated by python3 -m espnet_cif_hkd.recipe -->",
        "# RESULTS",
        "## Environments",
        f"- date: `{time.strftime('%a %b %e %H:%M:%S %Z %Y')}`",
        f"- python version: `{python}`",
        f"- espnet version: `espnet {espnet}`",
        f"- pytorch version: `pytorch {torch.__version__}`",
    ]
    commit = _git("rev-parse", "HEAD")
    if commit:
        lines += [
            f"- Git hash: `{commit}`",
            f"  - Commit date: `{_git('log', '-1', '--format=%cd')}`",
        ]
    return [*lines, ""]


def _scores(path: Path) -> str | None:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if "Sum/Avg" in line:
            return "|".join(re.sub(r"Sum/Avg|\|", " ", line).split())
    return None


def results_md(exp: Path) -> str:
    """Tables of all scores under an experiment, like ``show_asr_result.sh``'s."""
    lines = _environment()
    for folder in [exp, *sorted(path for path in exp.rglob("*") if path.is_dir())]:
        found = sorted(folder.glob("*/*/score_*/result.txt"))
        if not found:
            continue
        lines.append(f"## {folder}")
        for kind in ("wer", "cer", "ter"):
            if not any(path.parent.name == f"score_{kind}" for path in found):
                continue
            lines += [
                *(f"### {kind.upper()}", ""),
                "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|",
                "|---|---|---|---|---|---|---|---|---|",
            ]
            for path in found:
                scores = _scores(path)
                if path.parent.name == f"score_{kind}" and scores is not None:
                    dataset = path.parent.parent.relative_to(folder)
                    lines.append(f"|{dataset}|{scores}|")
            lines.append("")
    return "\n".join(lines) + "\n"
