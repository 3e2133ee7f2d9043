"""tools/demo.sh: what it trains with each of the packages that may be gone."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import fotaq_fixture
import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path("egs2/fotaq/asr_hkd")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The script without the recipe; its Python writes what it is called with."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/demo.sh", tmp_path / "tools")
    recipe = tmp_path / RECIPE
    (recipe / "local").mkdir(parents=True)
    _script(recipe / "local/speech_teacher.sh", '[ ! -e "${GONE}/speech" ]')
    for size in (1500, 2000):
        (recipe / f"data/test_{size}").mkdir(parents=True)
        (recipe / f"data/test_{size}/wav.scp").write_text("one some.flac\n")
    _script(
        tmp_path / "python",
        'if [ "$1" = -c ]; then [ ! -e "${GONE}/text" ]; exit; fi\n'
        'printf "%s\\037" "$@" >> "${GONE}/calls"; echo >> "${GONE}/calls"',
    )
    return tmp_path


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(demo: Path, *gone: str) -> tuple[str, list[list[str]]]:
    """What the demo prints and calls without these packages, ``speech`` or ``text``."""
    for name in gone:
        (demo / name).touch()
    done = subprocess.run(
        ["bash", str(demo / "tools/demo.sh"), "--nj", "1"],
        env={
            **os.environ,
            "PYTHON": str(demo / "python"),
            "GONE": str(demo),
            "GET_PLM": f'touch "{demo}/installed"; false',
        },
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (demo / "calls").read_text().splitlines()
    return done.stdout, [line.split("\037")[:-1] for line in lines]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.mark.parametrize(
    ("gone", "system", "passes"),
    [
        ((), "whisper_decoder", 2),
        (("text",), "whisper_decoder", 2),
        (("speech",), "hkd", 6),
        (("speech", "text"), "cif", 6),
    ],
    ids=["all", "no-text-teacher", "no-speech-teacher", "neither"],
)
def test_the_system(
    demo: Path, gone: tuple[str, ...], system: str, passes: int
) -> None:
    printed, (training, report, transcribe) = run(demo, *gone)
    assert ("the speech model cannot be had" in printed) == ("speech" in gone)
    assert (demo / "installed").exists() == ("speech" in gone)
    distilled = "speech" in gone and "text" not in gone
    assert ("there is no distillation" in printed) == (set(gone) == {"speech", "text"})
    assert "./run.sh" in training and training[-2:] == ["--nj", "1"]
    assert option(training, "--system") == system
    words = option(training, "--asr_args").split()
    assert option(words, "--max_epoch") == str(passes)
    stored = any("criterion_conf.teacher_store" in word for word in words)
    assert stored == distilled
    size = option(training, "--subset")
    assert size == ("2000" if "speech" in gone else "1500")
    exp = f"exp/subset_{size}/asr_{option(training, '--asr_tag')}"
    assert option(report, "--exp") == option(transcribe, "--model") == exp
    assert "some.flac" in transcribe
    # run.sh knows the system.
    known = re.search(
        r"^choose system ((?:.*\\\n)*.*)",
        (fotaq_fixture.RECIPE / "run.sh").read_text(),
        re.M,
    )
    assert known is not None and system in known[1].split()
