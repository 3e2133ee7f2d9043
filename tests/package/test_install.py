"""tools/install.sh installs all extras, and refuses what it cannot work with first."""

import os
import re
import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "tools" / "install.sh"


def stand_in(folder, name, version):
    """An interpreter that knows its version and nothing else."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\ncase $1 in -c) echo {version};; *) exit 9;; esac\n")
    path.chmod(0o755)
    return path


def install(*args, **env):
    return subprocess.run(
        ["bash", INSTALL, *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_unfit_interpreter_that_was_named(tmp_path, version):
    python = stand_in(tmp_path, "python3", version)
    result = install("--python", python, tmp_path / "venv")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {python} is Python {version}, and ESPnet")
    assert result.stderr.count("\n") == 1


def test_interpreter_that_does_not_run(tmp_path):
    python = tmp_path / "python3.11"
    python.write_text("#!/bin/sh\nexit 127\n")
    python.chmod(0o755)
    result = install("--python", python, tmp_path / "venv")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {python} is not a Python that runs; name another one\n"
    )


def test_no_interpreter_fits(tmp_path):
    path = tmp_path / "bin"
    for name in ("python3.10", "python3.11", "python3.12"):
        stand_in(path, name, "").write_text("#!/bin/sh\nexit 127\n")
    stand_in(path, "python3", "3.9")
    result = install(tmp_path / "venv", PATH=f"{path}:{os.environ['PATH']}")
    assert result.returncode == 1
    assert "no Python 3.10, 3.11 or 3.12 found (python3 is '3.9')" in result.stderr


def test_environment_of_another_python_is_left_alone(tmp_path):
    stand_in(tmp_path / "venv", "x", "")
    stand_in(tmp_path / "venv" / "bin", "python", "3.12")
    python = stand_in(tmp_path, "python3", "3.11")
    result = install("--python", python, tmp_path / "venv")
    assert result.returncode == 1
    assert "has Python 3.12, not 3.11; remove it" in result.stderr


def test_interpreter_without_venv(tmp_path):
    python = tmp_path / "python3"
    python.write_text(
        "#!/bin/sh\ncase $2 in *ensurepip*) exit 1;; *) echo 3.11;; esac\n"
    )
    python.chmod(0o755)
    result = install("--python", python, tmp_path / "venv")
    assert result.returncode == 1
    assert "apt install python3-venv" in result.stderr


@pytest.mark.parametrize("args", [["--frobnicate"], ["a", "b"], ["--python"]])
def test_wrong_usage(args):
    result = install(*args)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")


def test_no_folder_shows_the_usage():
    result = install()
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


def test_the_environment_has_every_extra_of_development() -> None:
    project = (INSTALL.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    script = (INSTALL.parents[1] / "tools/install.sh").read_text(encoding="utf-8")
    declared = re.search(r"^dev = \{ file = \[(.*?)\] \}", project, re.M | re.S)
    named = re.search(r'requirements-"\{"\$\{release\}",([\w,]+)\}\.txt', script)
    assert declared and named

    files = re.findall(r"tools/requirements-(\w+)\.txt", declared[1])

    assert sorted(files) == sorted(named[1].split(","))


def test_every_extra_is_part_of_development() -> None:
    project = (INSTALL.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    files = re.findall(r"^(\w+) = \{ file = \[\"tools/", project, re.M)

    declared = re.search(r"^dev = \{ file = \[(.*?)\] \}", project, re.M | re.S)
    assert declared and files

    assert all(f"requirements-{name}.txt" in declared[1] for name in files)
