"""Results of a run as JSON and as Markdown."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpu_check.steps import Result

_BAD_TESTS = ("failed", "error", "running")


@dataclass
class Report:
    """Results of a run; :meth:`write` can be called after each new result.

    Attributes:
        about: Commit, device, versions, limit.
        steps: Result of each step.
        tests: ``{name, outcome, seconds, message}`` of each ``gpu`` test; ``running``
            is the outcome of a test that was stopped at the time limit.
        figures: ``{benchmark, name, value, unit}``.
        training: Progress of the training.
        wants_tests: Whether a run without a passed test fails.
    """

    about: dict[str, Any]
    steps: list[Result] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    wants_tests: bool = True

    def read_tests(self, path: Path) -> None:
        """Read the outcomes that :mod:`gpu_check.outcomes` wrote."""
        found: dict[str, dict[str, Any]] = {}
        for row in read_lines(path):
            found[row["name"]] = row
        self.tests = list(found.values())

    def read_figures(self, benchmark: str, path: Path) -> None:
        """Read the ``--json`` file of a benchmark, if it exists."""
        if path.is_file():
            rows = json.loads(path.read_text("utf-8"))
            self.figures += [{"benchmark": benchmark, **row} for row in rows]

    @property
    def good(self) -> bool:
        """Whether all started steps and all tests that were not skipped passed."""
        return (
            all(step.good or step.outcome == "not run" for step in self.steps)
            and not any(test["outcome"] in _BAD_TESTS for test in self.tests)
            and (
                not self.wants_tests
                or any(test["outcome"] == "passed" for test in self.tests)
            )
        )

    def write(self, folder: Path, seconds: float) -> None:
        """Write ``results.json`` and ``results.md``, each complete or not at all.

        Args:
            folder: Made if it does not exist.
            seconds: Wall time of the run so far.
        """
        self.about["wall_seconds"] = round(seconds, 1)
        content = {
            **self.about,
            "passed": self.good,
            "steps": [asdict(step) for step in self.steps],
            "tests": self.tests,
            "figures": self.figures,
            "training": self.training,
        }
        _replace(folder / "results.json", json.dumps(content, indent=1) + "\n")
        _replace(folder / "results.md", self.markdown())

    def markdown(self) -> str:
        about = [(name, value) for name, value in _flat(self.about)]
        counts: dict[str, int] = {}
        for test in self.tests:
            counts[test["outcome"]] = counts.get(test["outcome"], 0) + 1
        summary = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "none"
        parts = [
            f"# GPU check: {'passed' if self.good else 'FAILED'}",
            _table(["what", "value"], about),
            "## Steps",
            _table(
                ["step", "outcome", "seconds", "limit", "message"],
                [
                    (s.name, s.outcome, f"{s.seconds:.1f}", f"{s.limit:.0f}", s.message)
                    for s in self.steps
                ],
            ),
            f"## Tests: {summary}",
            _table(
                ["test", "outcome", "seconds", "message"],
                [
                    (t["name"], t["outcome"], f"{t['seconds']:.1f}", t["message"])
                    for t in self.tests
                ],
            ),
            "## Figures",
            _table(
                ["benchmark", "figure", "value", "unit"],
                [
                    (f["benchmark"], f["name"], f"{f['value']:.4g}", f["unit"])
                    for f in self.figures
                ],
            ),
            "## Training",
            _table(["what", "value"], list(_flat(self.training))),
        ]
        return "\n\n".join(parts) + "\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; ignore an incomplete last line."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        else:
            rows.append((f"{prefix}{name}".replace("_", " "), value))
    return rows


def _table(head: list[str], rows: list[Any]) -> str:
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
