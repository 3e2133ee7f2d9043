"""The last lines of a test run name what was not run and how it can be."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def check_last_lines(
    test: str, reason: str, environment: dict[str, str] | None = None
) -> None:
    """Run a file of tests; only the reason why nothing of it ran is at its end."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(TESTS / test)],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    *_, stars, line, last = done.stdout.splitlines()
    assert stars.startswith("***") and " NOT RUN " in stars
    assert line == f"tests/{test}: {reason}"
    assert "skipped" in last and "passed" not in last


@pytest.mark.slow
def test_a_run_without_a_checkout_says_so_at_its_end() -> None:
    check_last_lines(
        "recipe/test_stock_asr_sh.py",
        "ESPNET_ROOT is not set: not compared with ESPnet's own scripts",
        {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"},
    )


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("espnet3") is not None, reason="ESPnet 3 is installed"
)
def test_a_run_without_espnet3_says_so_at_its_end() -> None:
    check_last_lines(
        "egs3/test_clusters.py",
        "ESPnet 3 is part of ESPnet 202611 (Python 3.12): its recipes are not tested",
    )
