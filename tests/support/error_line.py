"""The one line of a command that refuses its input."""

from collections.abc import Callable, Sequence

import pytest


def error_line(
    main: Callable[[Sequence[str]], object],
    capsys: pytest.CaptureFixture[str],
    *command: object,
) -> str:
    """Run a command that must fail with status 1; return its line."""
    with pytest.raises(SystemExit) as caught:
        main([str(part) for part in command])
    assert caught.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    return next(line for line in lines if line.startswith("error: "))
