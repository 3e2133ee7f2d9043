"""An empty environment with the wheel alone follows docs/own_corpus.md to its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from follow_own_corpus import make_corpus, script_of

ROOT = Path(__file__).parents[2]
VARIABLE = "ESPNET_CIF_HKD_FRESH_INSTALL"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_fresh_environment_follows_the_page(tmp_path: Path) -> None:
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} is not set: no environment with the wheel alone")
    command = [ROOT / "tools/fresh_install.sh", "--python", sys.executable]
    done = subprocess.run([*command, tmp_path / "fresh"], check=False)
    assert done.returncode == 0
    results = tmp_path / "fresh/work/my_corpus/exp/asr_small/RESULTS.md"
    assert "|test|" in results.read_text(encoding="utf-8").replace("/test", "|test")


def test_every_command_of_the_page_is_followed() -> None:
    page = (ROOT / "docs/own_corpus.md").read_text(encoding="utf-8")
    script = script_of(page)
    assert page.count("\n./run.sh") == script.count("\n./run.sh") >= 2
    for command in (
        "init template",
        "learning_curve",
        "plot_alignment",
        "Speech2Text(",
    ):
        assert command in script
    checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
    assert checked.returncode == 0


def test_the_corpus_is_as_the_page_describes_it(tmp_path: Path) -> None:
    make_corpus(tmp_path / "speech")
    table = (tmp_path / "speech/transcripts.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in table.splitlines()]
    assert [
        sum(row[2] == name for row in rows) for name in ("train", "dev", "test")
    ] == [*(12, 3, 3)]
    assert all((tmp_path / "speech" / row[3]).is_file() for row in rows)
    assert all(row[0].startswith(row[1]) for row in rows)
