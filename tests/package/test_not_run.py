"""The last lines of a test run name what was not run and how it can be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_run_without_a_checkout_says_so_at_its_end() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(TESTS / "recipe" / "test_stock_asr_sh.py")],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    *_, stars, line, last = done.stdout.splitlines()
    assert stars.startswith("***") and " NOT RUN " in stars
    assert line == (
        "tests/recipe/test_stock_asr_sh.py: "
        "ESPNET_ROOT is not set: not compared with ESPnet's own scripts"
    )
    assert "skipped" in last and "passed" not in last
