"""The committed pages are those that the command makes of the committed results."""

import json

import ablation_cells
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
pytest.importorskip("scour", reason="pictures need scour")

from ablation import figures, record
from ablation import report as command
from ablation.matrix import read_matrix

ROOT = ablation_cells.ROOT
FOLDER = ROOT / "benchmarks/ablation"


def measured():
    """Matrices of the repository that have cells."""
    folders = (FOLDER / "results").glob("*/cells/*.json")
    return sorted({FOLDER / f"{path.parts[-3]}.yaml" for path in folders})


def test_the_committed_pages_are_what_the_command_makes():
    """Making them again takes a minute: their digests are compared."""
    found = record.faults(FOLDER, ROOT, [read_matrix(path) for path in measured()])
    paths = " ".join(str(path.relative_to(ROOT)) for path in measured())
    assert not found, f"run: python3 benchmarks/ablation/report.py {paths}"


@pytest.mark.slow
def test_the_committed_texts_are_what_the_command_makes(tmp_path, monkeypatch):
    """Drawing takes most of the time, so the pictures are named only."""

    def named(summary, folder):
        corpus = summary.matrix.corpus
        known = (ROOT / "docs/ablation").glob(f"{corpus}_*.svg")
        names = [path.stem.removeprefix(f"{corpus}_") for path in known]
        return {
            name: folder / f"{corpus}_{name}.svg" for name in names if "_" not in name
        }

    monkeypatch.setattr(figures, "draw_all", named)
    pages_made = [p for p in command.report(measured(), tmp_path) if p.suffix == ".md"]
    assert len(pages_made) == len(measured()) + 1
    for page in pages_made:
        committed = ROOT / page.relative_to(tmp_path)
        assert page.read_text("utf-8") == committed.read_text("utf-8"), committed


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A repository with one matrix, its page, and one matrix without results."""
    folder = tmp_path / "benchmarks/ablation"
    folder.mkdir(parents=True)
    path = ablation_cells.write_matrix(folder)
    ablation_cells.write_cell(path, ablation_cells.cell("cif", 1, decodes=(), epochs=2))
    (folder / "fotaq_notes.md").write_text("Notes.")
    (folder / "answer.md").write_text("No.")
    text = path.read_text().replace("corpus: fotaq", "corpus: later")
    (folder / "later.yaml").write_text(text)
    page = tmp_path / "page.md"

    def write_page(summaries, root):
        page.write_text("A page.")
        return [page]

    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "write_results", write_page)
    monkeypatch.setattr(command, "write_reader_page", lambda *_: [])
    command.report(sorted(folder.glob("*.yaml")), tmp_path)
    return folder, [read_matrix(path)]


@pytest.mark.parametrize(
    "changed",
    [
        *("fotaq.yaml", "fotaq_notes.md", "results/fotaq/cells/cif_seed1.json"),
        *("answer.md", "page"),
    ],
)
def test_a_change_without_the_command_is_found(recorded, tmp_path, changed):
    folder, matrices = recorded
    assert record.faults(folder, tmp_path, matrices) == []
    file = tmp_path / "page.md" if changed == "page" else folder / changed
    file.write_text(file.read_text() + " ")
    found = record.faults(folder, tmp_path, matrices)
    assert len(found) == (1 if changed in ("answer.md", "page") else 2), found


def test_the_lock_of_a_run_is_no_input(recorded, tmp_path):
    """It is on the machine of the run and in no clone."""
    folder, matrices = recorded
    (folder / "results/fotaq/.lock").touch()
    assert record.faults(folder, tmp_path, matrices) == []
    (folder / "results/fotaq/other.json").touch()
    assert record.faults(folder, tmp_path, matrices)


def test_a_matrix_that_is_gone_leaves_the_record(recorded, tmp_path):
    folder, _ = recorded
    known = json.loads((folder / "results/pages.json").read_text())
    assert known.keys() == {"fotaq", record.ALL}
    assert "no such matrix" in record.faults(folder, tmp_path, [])[0]
    record.write(folder, tmp_path, {}, [])
    known = json.loads((folder / "results/pages.json").read_text())
    assert known.keys() == {record.ALL}
