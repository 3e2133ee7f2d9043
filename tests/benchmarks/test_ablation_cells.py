"""Matrices and cells are read as written; an error names the place of the fault."""

import ablation_cells
import pytest
from ablation.cells import read_cells
from ablation.matrix import read_matrix

from espnet_cif_hkd.errors import UserError


@pytest.fixture
def matrix_path(tmp_path):
    return ablation_cells.write_matrix(tmp_path)


def write(path, **changes):
    """A cell whose nested keys, written a__b, have other values."""
    found = ablation_cells.cell("hkd", 1)
    for where, value in changes.items():
        *folders, last = where.split("__")
        inner = found
        for name in folders:
            inner = inner[name]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return ablation_cells.write_cell(path, found)


def test_a_matrix_has_its_words_split(matrix_path):
    matrix = read_matrix(matrix_path)
    assert matrix.systems["hkd"].options == ("--system", "hkd")
    assert matrix.systems["att"].outside and not matrix.systems["cif"].outside
    assert matrix.results == matrix_path.parent / "results/fotaq"


def test_the_matrices_of_the_repository_are_sound():
    paths = sorted((ablation_cells.ROOT / "benchmarks/ablation").glob("*.yaml"))
    assert paths
    for path in paths:
        matrix = read_matrix(path)
        assert matrix.corpus == path.stem
        assert (ablation_cells.ROOT / matrix.recipe / "run.sh").is_file()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: cif", "baseline: no", r"baseline: give a text"),
        ("baseline: cif", "baseline: ciff", r"baseline: ciff is none of"),
        (
            "words: true",
            "words: true\ncontrols: {hkd: ctc}",
            r"controls: ctc is none of",
        ),
        ("epochs: 12", "epochs: twelve", r"epochs: give a whole number"),
        ("epochs: 12", "epochs: 12\nepoch: 3", r"epoch: unknown; known are"),
        ("[1, 2, 3]", "[1, 1]", r"seeds: give a list of different"),
        ("[1, 2, 3]", "[]", r"seeds: give a list of different"),
        ("system: hkd", "system: kd", r"variants.neg100.system: kd is none of"),
        ("  att:", "  a_t:", r"systems.a_t: names are lower-case letters"),
        ("options: []", "options: [1]", r"variants.neg100.options: give a list"),
        ("options: []", "epochs: 0", r"variants.neg100.epochs: give a whole number"),
        ("options: []", "against: ciff", r"neg100.against: ciff is none of \['acd'"),
        ("  neg100: {", "  acd: {", r"variants.acd: a system has this name"),
        ("options: []", 'options: "a \'b"', r"options: not words of a command"),
        ("outside: true", "outside: 3", r"systems.att.outside: give true or false"),
        ("words: true", "words: [", r"not YAML"),
    ],
)
def test_faults_of_a_matrix_are_named(matrix_path, old, new, message):
    text = matrix_path.read_text(encoding="utf-8")
    assert old in text
    matrix_path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_matrix(matrix_path)
    assert str(caught.value).startswith(str(matrix_path))


def test_a_missing_matrix_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read"):
        read_matrix(tmp_path / "none.yaml")


def test_a_cell_is_read_as_written(matrix_path):
    write(matrix_path)
    (found,) = read_cells(read_matrix(matrix_path))
    assert (found.name, found.variant) == ("hkd_seed1", None)
    written = {
        row["utterance"]: row
        for row in ablation_cells.cell("hkd", 1)["rows"]
        if (row["decode"], row["set"]) == ("lm", "test")
    }
    scores = found.decodes["lm"].sets["test"]
    assert list(scores.utterances) == sorted(written)
    errors = ("char_ins", "char_del", "char_sub")
    assert scores.rate("char") == pytest.approx(
        100
        * sum(row[name] for row in written.values() for name in errors)
        / sum(row["char_ref"] for row in written.values())
    )
    row = written[scores.utterances[7]]
    assert scores.tokens[7].tolist() == [row["ref_tokens"], row["hyp_tokens"]]
    assert scores.errors["char"][7].tolist() == [row[name] for name in errors]
    assert scores.classes["by_frequency"]["20-99"][7].tolist() == [
        row["seen_20-99_ref"],
        row["seen_20-99_wrong"],
    ]
    assert found.epochs[-1].valid["cer_free"] > 0
    assert next(iter(scores.by_position)) == "0-10%"


def test_a_cell_without_decodings_is_read(matrix_path):
    write(matrix_path, decodes={}, rows=[])
    (found,) = read_cells(read_matrix(matrix_path))
    assert found.decodes == {}


def test_a_cell_without_its_rows_must_be_collected_again(matrix_path):
    path = write(matrix_path, rows=[])
    message = "hkd_seed1.json: decodes.lm.by_position.dev: the table has no such"
    with pytest.raises(UserError, match=message):
        read_cells(read_matrix(matrix_path))
    path.unlink()  # rows alone are what a killed writer leaves: the cell is missing
    write(matrix_path)
    path.unlink()
    assert read_cells(read_matrix(matrix_path)) == ()


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format", 1, "format: this report reads format 2; collect the cell again"),
        ("hashes", None, "the file: has no 'hashes'"),
        ("seed", 1.5, "seed: must be a whole number"),
        ("epochs", [], "epochs: there is none"),
        ("epochs", {}, "epochs: must be a list"),
        ("parameters__training", None, "parameters: has no 'training'"),
        ("parameters__training", "4", "parameters.training: must be a number"),
        ("commands", [3], r"commands\[0\]: must be a text"),
        (
            "decodes__lm__by_position__dev__0-10%",
            [3, 0, 0],
            "dev.0-10%: must be 2 numbers, not 3",
        ),
        (
            "decodes__lm__by_position__dev__0-10%",
            [3, -1],
            r"dev.0-10%\[1\]: must be a whole number",
        ),
        ("decodes__lm__by_position__dev__0%", [1, 1], "unknown class '0%'"),
        ("system", "cif", "it holds cif_seed1; the name must be that"),
    ],
)
def test_faults_of_a_cell_are_named(matrix_path, where, value, message):
    path = write(matrix_path, **{where: value})
    if where == "system":  # written under the name of another
        path = path.rename(path.with_name("hkd_seed1.json"))
    with pytest.raises(UserError, match=message) as caught:
        read_cells(read_matrix(matrix_path))
    assert str(caught.value).startswith(str(path))


def test_half_a_file_is_refused(matrix_path):
    path = write(matrix_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="not JSON"):
        read_cells(read_matrix(matrix_path))


def test_cells_come_in_the_order_of_the_matrix(tmp_path):
    path = ablation_cells.write_all(tmp_path, seeds=(2, 1), decodes=())
    names = [found.name for found in read_cells(read_matrix(path))]
    assert names[:3] == ["cif_seed1", "cif_seed2", "acd_seed1"]
    assert names[-1] == "hkd_neg100_seed2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "has no 9; all runs count"),
        ({"corpus": "hsk"}, "corpus: hsk is not fotaq"),
        ({"variant": "other"}, "variant: .* has no other"),
        ({"system": "kd"}, "system: .* has no kd"),
    ],
)
def test_a_cell_of_another_matrix_is_not_left_out_silently(
    matrix_path, change, message
):
    ablation_cells.write_cell(matrix_path, ablation_cells.cell("hkd", 1) | change)
    with pytest.raises(UserError, match=message):
        read_cells(read_matrix(matrix_path))


@pytest.mark.parametrize("field", ["char_ref", "word_ref", "seen_1_ref"])
def test_different_references_are_not_compared(matrix_path, field):
    ablation_cells.write_cell(matrix_path, ablation_cells.cell("cif", 1))
    found = ablation_cells.cell("hkd", 1)
    changed = {("nolm", "test0003"): {field: 99}}
    found["rows"] = [
        {**row, **changed.get((row["decode"], row["utterance"]), {})}
        for row in found["rows"]
    ]
    ablation_cells.write_cell(matrix_path, found)
    with pytest.raises(UserError, match="test: its references are not those of"):
        read_cells(read_matrix(matrix_path))
