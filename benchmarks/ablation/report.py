#!/usr/bin/env python3
"""Makes the results pages of the recipes, their pictures and docs/results.md.

    python3 benchmarks/ablation/report.py benchmarks/ablation/fotaq.yaml

Needs numpy, scipy, matplotlib, scour and PyYAML, neither ESPnet nor torch. All numbers
and the sentences about them come from ``results/CORPUS/``. Other remarks are in
``CORPUS_notes.md`` beside the matrix: the file is copied into that page, and the part
above its first heading into docs/results.md. docs/results.md describes all matrices of
the folder that have cells; ``answer.md`` beside them is at its top.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("benchmarks", "tools", "")]

from ablation import figures, pages, reader_page, record  # noqa: E402
from ablation.cells import read_tuning  # noqa: E402
from ablation.matrix import read_matrix  # noqa: E402
from ablation.summary import Summary, summarise  # noqa: E402
from espnet_cif_hkd.errors import UserError  # noqa: E402
from espnet_cif_hkd.io.tables import write_text  # noqa: E402


def write_results(summary: Summary, root: Path) -> list[Path]:
    """Write pictures and the page of one matrix; returns the files.

    Args:
        summary: a matrix with its cells.
        root: of the repository.
    """
    pictures = figures.draw_all(summary, root / "docs/ablation")
    page = root / summary.matrix.recipe / summary.matrix.page
    tuned = read_tuning(summary.matrix)
    links = {name: _relative(path, page) for name, path in pictures.items()}
    write_text(page, pages.results(summary, tuned, links, notes(summary)))
    return [page, *pictures.values()]


def write_reader_page(summaries: Sequence[Summary], root: Path) -> list[Path]:
    """Write docs/results.md and its picture; returns the files."""
    picture, page = root / "docs/ablation/overview.svg", root / "docs/results.md"
    drawn = figures.draw_overview(summaries, picture)
    links = {
        summary.matrix.corpus: _relative(
            root / summary.matrix.recipe / summary.matrix.page, page
        )
        for summary in summaries
    }
    above = {one.matrix.corpus: notes(one).partition("\n#")[0] for one in summaries}
    link = _relative(picture, page) if drawn else None
    answer = "\n\n".join(map(_text, record.answers(one.matrix for one in summaries)))
    write_text(page, reader_page.reader(summaries, link, links, above, answer))
    return [page, *([picture] if drawn else [])]


def notes(summary: Summary) -> str:
    """The notes about a corpus, written by hand; empty if there is no such file."""
    matrix = summary.matrix
    return _text(matrix.path.with_name(f"{matrix.corpus}_notes.md"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _relative(path: Path, page: Path) -> str:
    """A link from a page to a file of the same repository."""
    here, there = page.parent.resolve().parts, path.resolve().parts
    same = 0
    while same < min(len(here), len(there)) and here[same] == there[same]:
        same += 1
    return "/".join([*[".."] * (len(here) - same), *there[same:]])


def report(paths: Sequence[Path], root: Path) -> list[Path]:
    """Write everything about some matrices.

    Raises:
        UserError: a matrix, a cell or the list of tuning runs cannot be used.
    """
    made = {path.resolve(): summarise(read_matrix(path)) for path in paths}
    parts = {
        one.matrix.corpus: (record.inputs(one.matrix), write_results(one, root))
        for one in made.values()
    }
    beside = {path for one in made for path in one.parent.glob("*.yaml")}
    known = [made.get(one) or summarise(read_matrix(one)) for one in sorted(beside)]
    known = [one for one in known if one.cells]
    matrices = [one.matrix for one in known]
    parts[record.ALL] = record.all_inputs(matrices), write_reader_page(known, root)
    if root == ROOT:
        record.write(ROOT / "benchmarks/ablation", root, parts, matrices)
    return [path for _, written in parts.values() for path in written]


def main(cmd: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("matrices", type=Path, nargs="+", metavar="MATRIX")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="write into another copy (tests)"
    )
    args = parser.parse_args(cmd)
    try:
        for path in report(args.matrices, args.root):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
