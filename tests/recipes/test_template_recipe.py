"""``recipe init template``: a recipe for one's own corpus."""

import os
import subprocess
import sys
from pathlib import Path

import four_systems
import pytest
import tiny_recipe
from aishell_fixture import options_of_run_sh
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import layout, options
from espnet_cif_hkd.recipe.cli import main

ROWS = [
    ("joe-2", "joe", "train", "b.wav", "HELLO  AGAIN"),
    ("ann-1", "ann", "train", "c.wav", "IT'S ME"),
    ("joe-1", "joe", "train", "a b.wav", "HELLO"),
    ("ann-2", "ann", "dev", "d.wav", "YES"),
    ("ann-3", "ann", "test", "e.wav", "NO"),
]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template in the working directory."""
    folder = tmp_path / "mine"
    layout.init(["template", str(folder)])
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CORPUS", raising=False)
    return folder


def data_sh(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["local/data.sh"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def example() -> str:
    """The example in the comment of local/data.sh, as code."""
    lines = Path("local/data.sh").read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("#   awk"))
    return "\n".join(line.removeprefix("#") for line in lines[begin : begin + 2])


def fill_in(body: str) -> None:
    """Write the function that the user is asked for."""
    text = Path("local/data.sh").read_text()
    begin = text.index("    echo ", text.index("list_utterances() {"))
    end = text.index("}\n", begin)
    Path("local/data.sh").write_text(f"{text[:begin]}{body}\n{text[end:]}")


def test_it_refuses_until_it_is_filled_in(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = data_sh()
    assert done.returncode == 2
    assert done.stderr == "error: CORPUS='': no such folder; set CORPUS in db.sh\n"
    done = data_sh(CORPUS="/tmp")
    assert done.returncode == 2
    assert done.stderr == (
        "error: local/data.sh is not filled in: write its function list_utterances\n"
    )
    assert main(options_of_run_sh(recipe, "--ngpu", "0")) == 1
    assert "error: local/data.sh  failed with exit status 2" in capfd.readouterr().err


def test_the_example_in_data_sh_makes_kaldis_tables(
    recipe: Path, tmp_path: Path
) -> None:
    table = "".join("\t".join(row) + "\n" for row in ROWS)
    (tmp_path / "transcripts.tsv").write_text(table)
    Path("db.sh").write_text(f"CORPUS={tmp_path}\n")
    fill_in(example())
    done = data_sh()
    assert done.returncode == 0, done.stderr
    train = {
        name: read_table(Path("data/train") / name)
        for name in ("text", "wav.scp", "utt2spk", "spk2utt")
    }
    assert train["utt2spk"] == {"ann-1": "ann", "joe-1": "joe", "joe-2": "joe"}
    assert train["spk2utt"] == {"ann": "ann-1", "joe": "joe-1 joe-2"}
    assert train["text"] == {
        "ann-1": "IT'S ME",
        "joe-1": "HELLO",
        "joe-2": "HELLO  AGAIN",
    }
    assert train["wav.scp"]["joe-1"] == f"{tmp_path}/a b.wav"
    assert all(list(table) == sorted(table) for table in train.values())
    assert set(read_table("data/dev/text")) == {"ann-2"}
    assert set(read_table("data/test/text")) == {"ann-3"}


def test_the_commands_of_the_page_take_a_path_with_a_blank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/own_corpus.md").read_text().splitlines()
    (names_corpus,) = (line for line in page if line.endswith("> db.sh"))
    (reads_table,) = (line for line in page if "table.readline()" in line)
    folder = tmp_path / "my files" / "mine"
    layout.init(["template", str(folder)])
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CORPUS", raising=False)
    speech = folder.parent / "speech"
    speech.mkdir()
    table = "".join("\t".join(row) + "\n" for row in ROWS)
    (speech / "transcripts.tsv").write_text(table)
    subprocess.run(["bash", "-ec", names_corpus], check=True)
    fill_in(example())
    assert data_sh().returncode == 0
    scp = read_table("data/train/wav.scp")
    assert scp["joe-1"] == f"{speech}/a b.wav"
    with open("data/train/wav.scp") as table_:
        found: dict[str, str] = {}
        exec(reads_table.strip(), {"table": table_}, found)
    assert found["path"] == next(iter(scp.values()))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo a b c d", "list_utterances train: four columns with tabs between them"),
        (r'printf "a\tb\t\tc\n"', "list_utterances train: four columns"),
        (":", "list_utterances train printed no utterance"),
    ],
)
def test_lines_that_are_no_utterances(recipe: Path, body: str, message: str) -> None:
    fill_in(body)
    done = data_sh(CORPUS="/tmp")
    assert done.returncode == 2
    assert message in done.stderr


def test_the_two_configurations_differ_in_the_criterion_only() -> None:
    conf = layout.recipes_folder() / "TEMPLATE/asr_hkd/conf"
    cif, hkd = (four_systems.load(conf, name) for name in ("cif", "cif_hkd"))
    assert cif["model_conf"].pop("criterion") is None
    assert hkd["model_conf"].pop("criterion") == "hkd"
    assert hkd["model_conf"].pop("criterion_conf")["teacher"] is None
    assert cif == hkd
    four_systems.check_decoding(conf)


def tiny_corpus(recipe: Path) -> list[str]:
    """A corpus that the template's run.sh trains on, and options that suit it."""
    for name, count in (("train", 8), ("dev", 4), ("test", 3)):
        tiny_recipe.write_set(recipe, name, count, rate=16000)
    Path("local/data.sh").write_text(tiny_recipe.DATA_SH)
    return ["--ngpu", "0", "--nj", "1", "--token_type", "char"]


def test_hkd_asks_for_a_teacher_before_stage_10(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--system", "hkd", *tiny_corpus(recipe), "--stop_stage", "10"]
    assert main(options_of_run_sh(recipe, *words)) == 1
    printed = capfd.readouterr().err
    assert printed.startswith("error: ") and "criterion_conf.teacher" in printed
    assert printed.count("\n") == 1
    assert not Path("exp").exists()


@pytest.mark.slow
@pytest.mark.parametrize("system", ["cif", "hkd"])
def test_its_configurations_pass_all_checks(
    recipe: Path, tmp_path: Path, system: str
) -> None:
    words = ["--system", system, *tiny_corpus(recipe), "--stop_stage", "10"]
    if system == "hkd":
        teacher = build_tiny_bert(tmp_path / "teacher")
        args = f"--model_conf criterion_conf.teacher={teacher} "
        args += f"--model_conf criterion_conf.teacher_dim={HIDDEN}"
        words += ["--asr_args", args]
    asked = options.parse(options_of_run_sh(recipe, *words))
    assert (
        asked.asr_config
        == f"conf/train_asr_{'cif' if system == 'cif' else 'cif_hkd'}.yaml"
    )
    # The engine's checks run before stage 10, which collects statistics.
    assert main(options_of_run_sh(recipe, *words)) == 0
    assert list(Path("exp").glob("asr_stats_*/train/speech_shape"))


def test_run_sh_starts_the_engine(recipe: Path) -> None:
    done = subprocess.run(
        ["./run.sh", "--stage", "20"],
        env={**os.environ, "PYTHON": sys.executable, "ESPNET_ROOT": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --stage 20 does not exist")
