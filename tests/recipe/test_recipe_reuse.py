"""--reuse true after something has changed: the complete engine."""

from pathlib import Path

import pytest
from finished_recipe import finished, recipe, run

__all__ = ["finished", "recipe"]


def stages(printed: str, words: str) -> list[int]:
    """The stages of which the terminal says so."""
    lines = [line.split() for line in printed.splitlines() if line.endswith(words)]
    return [int(line[2]) for line in lines if line[1] == "stage" and line[2].isdigit()]


def reuse(capfd: pytest.CaptureFixture[str], **changed: str) -> tuple[int, str]:
    capfd.readouterr()
    code = run(use_lm="true", reuse="true", **changed)
    printed = capfd.readouterr()
    return code, printed.out + printed.err


def test_a_corrected_transcript_outside_of_the_recipe(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, printed = reuse(capfd)
    assert code == 0
    assert stages(printed, "up to date, reused") == [1, 4, 5, 6, 7, 8, 10, 11, 12]
    for path in ("source/train/text", "source/test/text"):
        text = Path(path)
        text.write_text(text.read_text().replace("0 ab", "0 ba").replace("1 ba", "1 a"))
    code, printed = reuse(capfd, stop_stage="6")
    assert code == 0
    assert stages(printed, "up to date, reused") == []
    # The recogniser would go on from what it learned of the wrong transcript.
    code, printed = reuse(capfd, skip_stages="7 8")
    assert code == 1 and "the training data have changed" in printed


def test_without_declared_inputs_only_stage_1_runs_again(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = Path("local/data.sh")
    script.write_text("".join(line for line in script.open() if ".inputs" not in line))
    for attempt in range(2):
        code, printed = reuse(capfd)
        assert code == 0
        assert ("runs again, because data/.inputs is missing" in printed) == bool(
            attempt
        )
        assert stages(printed, "up to date, reused") == [4, 5, 6, 7, 8, 10, 11, 12]
        assert printed.count("is up to date, reused") == 3  # the sets of stage 3
