"""Pages and pictures from complete, partial and empty matrices."""

import json
import re
import subprocess
import sys

import ablation_cells
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
pytest.importorskip("scour", reason="pictures need scour")

from ablation import figures, pages, panels, reader_page, tables
from ablation import report as command
from ablation.errors import SOUNDS
from ablation.matrix import read_matrix
from ablation.summary import class_difference, pooled, shown, summarise

ROOT = ablation_cells.ROOT
FOLDER = ROOT / "benchmarks/ablation"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A complete matrix, and the folder its report was written into."""
    folder = tmp_path_factory.mktemp("complete")
    path = ablation_cells.write_all(folder)
    (folder / "fotaq_notes.md").write_text("Short.\n\n## Why\n\nLong.\n", "utf-8")
    (folder / "answer.md").write_text("The answer.\n", "utf-8")
    # One path of the command, and another of the same folder.
    command.report([folder / ".." / folder.name / path.name], folder / "root")
    return path, folder / "root"


def page(root):
    return (root / "egs2/fotaq/asr_hkd/RESULTS.md").read_text(encoding="utf-8")


def section(text, title):
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text, first):
    """Cells of the table rows that begin with a cell."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def build(folder, cells, seeds=(1, 2, 3), words=True, more=""):
    """Both pages, without pictures, which take nearly all of the time."""
    path = ablation_cells.write_matrix(folder, seeds, words)
    path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")
    for found in cells:
        ablation_cells.write_cell(path, found)
    summary = summarise(read_matrix(path))
    folders = {"fotaq": "../egs2/fotaq/asr_hkd"}
    return (
        pages.results(summary, [], {}, ""),
        reader_page.reader([summary], None, folders, {}),
    )


@pytest.mark.slow
def test_the_table_has_mean_and_deviation_of_all_runs(complete):
    _, root = complete
    rates = []
    for seed in (1, 2, 3):
        counted = [
            row
            for row in ablation_cells.cell("hkd", seed)["rows"]
            if (row["decode"], row["set"]) == ("nolm", "test")
        ]
        wrong = sum(row[f"char_{k}"] for row in counted for k in ("ins", "del", "sub"))
        rates.append(100 * wrong / sum(row["char_ref"] for row in counted))
    expected = f"{np.mean(rates):.1f} ± {np.std(rates, ddof=1):.1f}"
    without, with_lm = rows(section(page(root), "Error rates"), "CIF + HKD")
    assert without[3] == expected
    assert float(with_lm[3].split()[0]) < float(without[3].split()[0])
    runs = rows(section(page(root), "Every run"), "CIF + HKD")
    assert [row[4] for row in runs] == [f"{rate:.2f}" for rate in rates]


@pytest.mark.slow
def test_the_page_has_all_runs_notes_and_commands(complete):
    _, root = complete
    text = page(root)
    assert text.startswith("<!-- Made by `python3 benchmarks/ablation/report.py ")
    assert "\nShort.\n\n## Why\n\nLong.\n" in text
    assert section(text, "Missing runs").strip().startswith("None")
    (row,) = rows(section(text, "Side experiments"), "100 negatives")[:1]
    assert row[1] == "CIF + HKD"
    commands = section(text, "Versions, data and commands")
    for system in ablation_cells.QUALITY:
        runs = 4 if system == "hkd" else 3  # three seeds, and the variant
        assert commands.count(f"./run.sh --system {system} ") == runs


@pytest.mark.slow
def test_pictures_are_linked_and_exist(complete):
    _, root = complete
    for file in (root / "egs2/fotaq/asr_hkd/RESULTS.md", root / "docs/results.md"):
        links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", file.read_text(encoding="utf-8"))
        assert links
        for link in links:
            assert (file.parent / link).is_file(), link
    assert "![" in page(root) and len(list((root / "docs/ablation").iterdir())) == 8


@pytest.mark.slow
def test_the_same_cells_make_the_same_bytes(complete, tmp_path):
    path, root = complete
    summary = summarise(read_matrix(path))
    figures.draw_overview([summary], tmp_path / "overview.svg")
    with panels.style():
        panels.save(figures.cer_by_epoch(summary), tmp_path / "fotaq_cer.svg")
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (root / "docs/ablation" / file.name).read_bytes()
    names = [file.stem for file in (root / "docs/ablation").iterdir()]
    links = {
        name: f"../../../docs/ablation/fotaq_{name}.svg"
        for name in pages.ALT
        if f"fotaq_{name}" in names
    }
    assert pages.results(summary, [], links, command.notes(summary)) == page(root)


@pytest.mark.slow
def test_the_page_for_readers_has_one_table_one_picture_and_the_short_notes(complete):
    _, root = complete
    text = (root / "docs/results.md").read_text(encoding="utf-8")
    assert text.count("\n|---") == 1 and text.count("![") == 1
    assert "Short." in text and "Long." not in text
    assert text.count("The answer.") == 1
    assert text.index("The answer.") < text.index("Short.")
    assert "CTC/attention" in text.partition("|")[0]


def test_missing_cells_are_named_and_not_filled(tmp_path):
    cells = [
        ablation_cells.cell("cif", 1),
        ablation_cells.cell("cif", 2, decodes=("nolm",)),
        ablation_cells.cell("hkd", 2, epochs=7),
    ]
    text, reader = build(tmp_path, cells)
    missing = section(text, "Missing runs")
    assert "- CIF, seed 3: no run" in missing
    assert "- CIF, seed 2: dev and test not decoded with LM" in missing
    assert "- CIF + HKD, seed 2: 7 epochs, not 12" in missing
    assert "- CIF + HKD, 100 negatives, seed 1: no run" in missing
    assert "3 of 15 planned runs" in text
    run = rows(section(text, "Every run"), "CIF")
    assert run[2][2:] == ["missing"] * 9 and run[1][-4:] == ["missing"] * 4
    rates = section(text, "Error rates")
    assert rows(rates, "CIF + ACD")[0][1:6] == ["0", *["missing"] * 4]
    # One seed in common: a difference of one run, never one of unequal seeds.
    assert "**One run of *CIF + HKD* is " in text
    assert "Only 1 of 3 systems have been run." in text
    assert "results are missing" in reader and "each with 1 to 2 seeds" in reader


def test_one_seed_has_no_deviation_and_no_interval_of_seeds(tmp_path):
    cells = [ablation_cells.cell(system, 1) for system in ("cif", "hkd")]
    text, _ = build(tmp_path, cells, seeds=(1,))
    row = rows(section(text, "Error rates"), "CIF + HKD")[0]
    assert row[3].endswith("± –") and row[-1].endswith(" –")
    assert rows(section(text, "Confidence intervals"), "CIF + HKD")[0][5:7] == [
        "–",
        "–",
    ]


def test_without_any_cell(tmp_path):
    command.report([ablation_cells.write_matrix(tmp_path)], tmp_path / "root")
    text = page(tmp_path / "root")
    assert "Compared by test CER without LM. Nothing can be compared yet." in text
    assert "0 of 15 planned runs" in text
    reader = (tmp_path / "root/docs/results.md").read_text(encoding="utf-8")
    assert "Nothing has been measured yet." in reader
    assert not list((tmp_path / "root").rglob("*.svg"))


@pytest.mark.slow
def test_pictures_show_what_there_is_and_vanish_with_it(tmp_path):
    path = ablation_cells.write_matrix(tmp_path)
    for system in ("att", "acd"):
        cell = ablation_cells.cell(system, 1, decodes=(), epochs=2)
        ablation_cells.write_cell(path, cell)
    drawn = figures.draw_all(summarise(read_matrix(path)), tmp_path)
    assert list(drawn) == ["cer", "losses", "distillation"]
    (tmp_path / "results/fotaq/cells/acd_seed1.json").unlink()
    drawn = figures.draw_all(summarise(read_matrix(path)), tmp_path)
    assert list(drawn) == ["cer"]
    assert [file.name for file in tmp_path.glob("*.svg")] == ["fotaq_cer.svg"]


def test_characters_need_no_words(tmp_path):
    cells = [ablation_cells.cell(s, seed) for s in ("cif", "hkd") for seed in (1, 2)]
    text, reader = build(tmp_path, cells, words=False)
    assert "WER" not in text and "Characters substituted or deleted" in text
    assert "WER" not in reader


def test_a_variant_is_compared_with_its_system_or_what_is_named(tmp_path):
    path = ablation_cells.write_matrix(tmp_path)
    text = path.read_text(encoding="utf-8").replace(
        "decodes:",
        "  long: {label: 24 epochs, system: cif, epochs: 24}\n"
        "  both: {label: 24 epochs, system: hkd, epochs: 24, against: long}\ndecodes:",
    )
    path.write_text(text, encoding="utf-8")
    found = {
        name: ablation_cells.cell(name, 1, variant, decodes=("nolm",), epochs=epochs)
        for name, variant, epochs in (("cif", "long", 24), ("hkd", "both", 24))
    }
    for cell in (*found.values(), ablation_cells.cell("cif", 1, decodes=("nolm",))):
        ablation_cells.write_cell(path, cell)
    summary = summarise(read_matrix(path))
    assert not [line for line in summary.missing() if "epochs, not" in line]
    table = tables.variants(summary)
    (plain,), (both,) = (
        [row for row in rows(table, "24 epochs") if row[1] == label]
        for label in ("CIF", "CIF + HKD")
    )
    assert plain[7] == "CIF" and both[7] == "CIF, 24 epochs"
    assert both[8] == plain[6]
    points = float(both[9].replace("\N{MINUS SIGN}", "-"))
    assert points == pytest.approx(float(both[6]) - float(both[8]), abs=0.011)
    long = ablation_cells.cell("hkd", 1, "both", epochs=25)
    ablation_cells.write_cell(path, long)
    lines = summarise(read_matrix(path)).missing()
    assert "CIF + HKD, seed 1, 24 epochs: 25 epochs, not 24" in lines


def test_all_tuning_runs_are_listed(tmp_path):
    path = ablation_cells.write_matrix(tmp_path)
    file = tmp_path / "results/fotaq/tuning.json"
    file.parent.mkdir(parents=True)
    entries = [
        {"name": "lr1", "question": "lr|rate", "changed": {"lr": 0.001}, "epochs": 5}
        | {
            "seed": 1,
            "seconds": 900.5,
            "dev": {"cer": 41.25},
            "commands": ["./run.sh"],
        },
        {"name": "w", "question": "weight", "changed": "acd 0.1", "dev": {"wer": 80.0}},
    ]
    file.write_text(json.dumps(entries))
    command.report([path], tmp_path / "root")
    tuned = section(page(tmp_path / "root"), "Tuning")
    assert "| lr1 | lr\\|rate | lr 0.001 | 5 | 1 | 900.5 | 41.25 | – |" in tuned
    assert "| w | weight | acd 0.1 | – | – | – | – | 80 |" in tuned
    entries[0]["dev"]["cer"] = 0.4125
    file.write_text(json.dumps(entries))
    assert command.main([str(path), "--root", str(tmp_path / "root")]) == 1


@pytest.mark.slow
def test_sounds_are_listed_where_readings_are_known(tmp_path):
    cells = [ablation_cells.cell(s, seed) for s in ("cif", "hkd") for seed in (1, 2)]
    for found in cells:
        wrong = {"homophone": 3 if found["system"] == "cif" else 2, "sound": 4}
        found["rows"] = [
            {**row, "char_ref": 50}
            | {f"sound_{name}": wrong.get(name, 0) for name in SOUNDS}
            for row in found["rows"]
        ]
    text = section(build(tmp_path, cells, seeds=(1, 2))[0], "Error analysis")
    assert "syllable" not in text
    readings = "readings: data/{set}/pinyin\n"
    made, _ = build(tmp_path, cells, seeds=(1, 2), more=readings)
    text = section(made, "Error analysis")
    assert "| a homophone: same syllable and tone | 5,000 | 6.0 | 4.0 |" in text
    assert "| another syllable | 5,000 | 8.0 | 8.0 |" in text
    header = "| replaced by | a homophone: same syllable and tone |"
    assert f"{header} same syllable, another tone | another syllable |" in text
    assert "| CIF + HKD | −2.0 [−2.0, −2.0] |" in text


@pytest.mark.slow
def test_the_question_is_compared_with_a_control_too(tmp_path):
    systems = ("cif", "lrd", "hkd")
    cells = [ablation_cells.cell(s, seed) for s in systems for seed in (1, 2, 3)]
    text, reader = build(tmp_path, cells, more="controls: {hkd: lrd}\n")
    lines = section(text, "In short").splitlines()
    (line,) = (line for line in lines if "against" in line and "CIF + LRD*." in line)
    assert "***CIF + HKD* is better than *CIF + LRD*.**" in line
    answer = reader.index("*CIF + HKD* is better than *CIF*.")
    controlled = reader.index("*CIF + HKD* is better than *CIF + LRD*.")
    assert answer < controlled < reader.index("Better than *CIF*: *CIF")
    where = section(text, "Error analysis")
    assert "| CIF + HKD minus CIF + LRD | " in where
    _, reader = build(tmp_path, cells, more="controls: {hkd: [lrd, cif], lrd: cif}\n")
    assert "Better than *CIF + LRD*: *CIF + HKD*." in reader
    _, reader = build(tmp_path, cells, more="controls: {hkd: hkd, lrd: lrd}\n")
    assert "No difference from *CIF + HKD* was shown: *CIF + HKD*." in reader


def test_tables_have_one_order_of_systems_for_any_order_of_runs(tmp_path):
    path = ablation_cells.write_matrix(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    first = lines.index("systems:") + 1
    own = sorted(lines[first : first + 5])  # acd, att, cif, hkd, lrd
    path.write_text("\n".join([*lines[:first], *own, *lines[first + 5 :]]) + "\n")
    summary = summarise(read_matrix(path))
    assert list(summary.matrix.systems)[:2] == ["acd", "att"]
    assert summary.systems == ["cif", "acd", "lrd", "hkd", "att"]
    assert summary.question == "hkd"


@pytest.mark.slow
def test_a_class_is_compared_by_its_own_words(complete):
    summary = summarise(read_matrix(complete[0]))
    base, own = (summary.scores(s, "nolm", "test") for s in ("cif", "hkd"))
    found = class_difference(base, own, "by_frequency", "2-4")
    rates = [pooled(list(a.values()), "by_frequency")["2-4"][1] for a in (base, own)]
    assert found.absolute == pytest.approx(rates[1] - rates[0])
    assert (
        found.absolute_utterances.low < found.absolute < found.absolute_utterances.high
    )


def test_what_is_shown_of_few_values():
    assert shown([]) == "missing"
    assert shown([2.04]) == "2.0 ± –"
    assert shown([-1.0, -2.0], 2) == "−1.50 ± 0.71"


def test_labels_are_moved_apart_and_stay_in_order():
    moved = panels._apart([0.0, 1.0, 2.0, 50.0], 10)
    assert moved == [-9.0, 1.0, 11.0, 50.0]
    assert panels._apart([], 10) == []


@pytest.mark.parametrize("number", [1, 3, 9])
def test_the_key_is_no_wider_than_its_figure(number):
    figure, axes = panels.canvas(2.0)
    for count in range(number):
        axes[0].plot([0, 1], [0, 1], label=f"a system with a name, the {count}th")
    panels.key(figure, axes)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == number
    assert legend.get_window_extent().width <= figure.bbox.width


def test_the_command_names_a_fault(tmp_path, capsys):
    assert command.main([str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_as_a_script_without_espnet_and_torch(tmp_path):
    path = ablation_cells.write_matrix(tmp_path)
    cell = ablation_cells.cell("cif", 1, decodes=(), epochs=2)
    ablation_cells.write_cell(path, cell)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "espnet", "espnet2"):
        (blocked / f"{name}.py").write_text("raise ImportError(__name__)\n")
    script = [sys.executable, str(FOLDER / "report.py"), str(path)]
    done = subprocess.run(
        [*script, "--root", str(tmp_path / "root")],
        env={"PYTHONPATH": str(blocked), "PATH": "", "MPLCONFIGDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "root/docs/results.md") in done.stdout.splitlines()
    assert str(tmp_path / "root/docs/ablation/fotaq_cer.svg") in done.stdout
