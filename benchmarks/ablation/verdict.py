"""Sentences about a difference, made from its numbers.

A system is called better or worse only if all three intervals of ``significance.py``
are on the same side of 0. Every weaker result is reported with what it lacks.
"""

import enum
import math
from collections.abc import Sequence

from ablation.significance import Difference, Interval


class Finding(enum.Enum):
    """The evidence for a difference; only ``SHOWN`` is a claim."""

    SHOWN = "shown"
    SEEDS_OPEN = "few seeds"
    TRAINING_OPEN = "only these models"
    ONE_SEED = "one seed"
    NOT_SHOWN = "not shown"


def find(difference: Difference) -> Finding:
    """The finding that the intervals of the absolute difference allow."""
    side = difference.absolute_utterances.side
    if side == 0:
        return Finding.NOT_SHOWN
    if difference.absolute_both is None or difference.over_seeds is None:
        return Finding.ONE_SEED
    if difference.absolute_both.side != side:
        return Finding.TRAINING_OPEN
    if difference.over_seeds.side != side:
        return Finding.SEEDS_OPEN
    return Finding.SHOWN


def signed(value: float, digits: int = 1) -> str:
    """The number with its sign; without one if it rounds to 0."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", "−")


def bracket(interval: Interval | None, digits: int = 1) -> str:
    """``[−1.2, +0.3]``; a dash if there is none."""
    if interval is None or math.isnan(interval.low):
        return "–"
    return f"[{signed(interval.low, digits)}, {signed(interval.high, digits)}]"


def in_a_word(difference: Difference) -> str:
    """The finding for a column of a table."""
    finding = find(difference)
    if finding is Finding.NOT_SHOWN:
        return "no difference shown"
    way = "lower" if difference.absolute_utterances.side < 0 else "higher"
    if finding is Finding.SHOWN:
        return f"**{way}**"
    return {
        Finding.SEEDS_OPEN: f"{way}, but too few seeds for their spread",
        Finding.TRAINING_OPEN: f"{way} for these models only",
        Finding.ONE_SEED: f"{way} in the one run",
    }[finding]


def headline(
    baseline: str, compared: Sequence[tuple[str, Difference]], sought: int
) -> str:
    """The result of all comparisons: a list of systems for each verdict.

    Args:
        baseline: its label.
        compared: label and difference of each system that could be compared.
        sought: number of systems that the matrix compares.
    """
    if not compared:
        return "Nothing can be compared yet."
    ways = ("better", "worse")
    groups: dict[tuple[Finding, str], list[str]] = {}
    undecided: list[str] = []
    for label, found in compared:
        finding, way = find(found), ways[found.absolute_utterances.side > 0]
        if finding in (Finding.SHOWN, Finding.ONE_SEED):
            groups.setdefault((finding, way), []).append(label)
        else:
            undecided.append(label)
    begin = {Finding.SHOWN: "", Finding.ONE_SEED: "in one run of each, "}
    parts = []
    for finding, words in begin.items():
        for way in ways:
            if names := groups.get((finding, way)):
                head = f"{words}{way} than {italic(baseline)}"
                parts.append(f"{head[0].upper()}{head[1:]}: {listed(names)}.")
    if not parts:
        parts = [f"No system was shown to be better or worse than {italic(baseline)}."]
    elif undecided:
        parts.append(f"Not decided: {listed(undecided)}.")
    text = " ".join(parts)
    if len(compared) < sought:
        text += f" Only {len(compared)} of {sought} systems have been run."
    return text


def italic(name: str) -> str:
    """The label of a system, which may contain commas and "and", in a sentence."""
    return f"*{name}*"


def listed(names: Sequence[str]) -> str:
    """``*A*; *B, C and D*``."""
    return "; ".join(map(italic, names))


def sentence(system: str, baseline: str, rate: str, difference: Difference) -> str:
    """The comparison in words.

    Args:
        system, baseline: their labels.
        rate: what is compared, such as ``test CER without LM``.
        difference: system against baseline.
    """
    finding, side = find(difference), difference.absolute_utterances.side
    better = "better" if side < 0 else "worse"
    runs = len(difference.seeds)
    system, baseline = italic(system), italic(baseline)
    head = {
        Finding.SHOWN: f"{system} is {better} than {baseline}",
        Finding.SEEDS_OPEN: f"{system} was {better} than {baseline} in these runs, "
        f"but {runs} seeds do not prove it",
        Finding.TRAINING_OPEN: f"the trained models of {system} are {better} than "
        f"those of {baseline}, but other seeds may give another result",
        Finding.ONE_SEED: f"one run of {system} is {better} than one run of "
        f"{baseline}; the variation between runs was not measured",
        Finding.NOT_SHOWN: f"no difference between {system} and {baseline} was shown",
    }[finding]
    return (
        f"**{head[0].upper()}{head[1:]}.** {rate[0].upper()}{rate[1:]} is "
        f"{difference.rate:.1f} % against {difference.baseline:.1f} %: "
        f"{_size(difference)}. {_intervals(difference)}{_because(finding, difference)}"
    )


def _size(difference: Difference) -> str:
    absolute = difference.absolute
    if float(f"{absolute:.1f}") == 0:
        return "equal within 0.05 points"
    way = "lower" if absolute < 0 else "higher"
    text = f"{abs(absolute):.1f} points {way}"
    if not math.isnan(difference.relative):
        text += f" ({abs(difference.relative):.1f} % relative)"
    return text


def _intervals(difference: Difference) -> str:
    parts = [f"{bracket(difference.absolute_utterances)} over utterances"]
    if difference.absolute_both is not None and difference.over_seeds is not None:
        parts.append(f"{bracket(difference.absolute_both)} over utterances and seeds")
        parts.append(f"{bracket(difference.over_seeds)} over seeds alone")
    return f"95 % intervals of the difference in points: {', '.join(parts)}. "


def _because(finding: Finding, difference: Difference) -> str:
    runs = len(difference.seeds)
    if finding is Finding.ONE_SEED:
        return "The interval does not cover the variation between trainings."
    if finding is Finding.SHOWN:
        return f"None contains 0; {_agreement(difference)}."
    if finding is Finding.SEEDS_OPEN:
        return f"The last contains 0; {_agreement(difference)}."
    if finding is Finding.TRAINING_OPEN:
        return f"The second contains 0; {_agreement(difference)}."
    which = "The interval" if runs == 1 else "The first"
    text = f"{which} contains 0: the test set does not separate the two systems"
    return f"{text}; {_agreement(difference)}." if runs > 1 else f"{text}."


def _agreement(difference: Difference) -> str:
    lower = sum(value < 0 for value in difference.per_seed)
    higher = sum(value > 0 for value in difference.per_seed)
    runs = len(difference.per_seed)
    if lower == runs or higher == runs:
        which = "both" if runs == 2 else f"all {runs}"
        return f"the rate is {'lower' if lower else 'higher'} with {which} seeds"
    return f"the rate is lower with {lower} of {runs} seeds, higher with {higher}"
