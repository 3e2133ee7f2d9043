"""The shell scripts of the recipes: which options they take and refuse."""

import os
import subprocess
from pathlib import Path

import pytest

EGS2 = Path(__file__).parents[2] / "egs2"


def _shell(
    corpus: str, script: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(EGS2 / corpus / "asr_hkd" / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": "false"},
    )


@pytest.mark.parametrize("corpus", ["fotaq", "hsk"])
def test_data_sh_takes_what_asr_sh_gives(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = _shell(corpus, "local/data.sh", "--asr_data_dir", "dump/raw/train")
    assert done.returncode == 0
    assert "nothing to do for dump/raw/train" in done.stdout
    done = _shell(corpus, "local/data.sh", "--subset=5")
    assert done.returncode == 1  # PYTHON fails, and the script says so
    done = _shell(corpus, "local/data.sh", "--sub", "5")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("has no option --sub")


@pytest.mark.parametrize(
    ("corpus", "arguments", "message"),
    [
        (
            "fotaq",
            ["--system", "rnn"],
            "--system rnn: choose cif, acd, lrd, hkd, soft, att, transducer, whisper, ",
        ),
        ("fotaq", ["--subset", "few"], "--subset few: give a number"),
        ("fotaq", ["--system"], "--system needs a value"),
        (
            "fotaq",
            ["--fotaq_archive=a b"],
            "--fotaq_archive: asr.sh cannot pass a path",
        ),
        (
            "hsk",
            ["--system", "rnn"],
            "--system rnn: choose cif, acd, lrd, hkd, soft or whisper_decoder",
        ),
        ("hsk", ["--subset", "few"], "--subset few: give a number"),
        ("hsk", ["--system"], "--system needs a value"),
        ("hsk", ["--subset=-5"], "--subset -5: give a number"),
        (
            "aishell",
            ["--system=lm"],
            "--system lm: choose cif, acd, lrd, hkd, soft or whisper_decoder",
        ),
        ("aishell", ["--data-url"], "--data-url needs a value"),
        ("librispeech", ["--hours", "9"], "--hours 9: choose 960 or 100"),
        ("TEMPLATE", ["--system", "acd"], "--system acd: choose cif or hkd"),
    ],
)
def test_run_sh_refuses(corpus: str, arguments: list[str], message: str) -> None:
    done = _shell(corpus, "run.sh", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
