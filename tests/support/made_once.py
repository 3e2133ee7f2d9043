"""What is made once for all processes of a test run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]
) -> Path:
    """Return the folder that the first caller's ``make`` has filled.

    Args:
        tmp_path_factory: of any process of the run.
        name: of the folder; the same in all processes.
        make: gets a new folder and returns the one that tests use, in or below it.
    """
    top = tmp_path_factory.getbasetemp()
    if top.name.startswith("popen-"):  # a process of pytest-xdist
        top = top.parent
    folder, done = top / name, top / f"{name}.done"
    with FileLock(top / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a maker that failed
            folder.mkdir()
            done.write_text(str(make(folder)))
    return Path(done.read_text())
