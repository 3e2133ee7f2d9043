"""Several machines: which options are taken, and what is checked before a run."""

import subprocess
import sys
from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import machines as several
from espnet_cif_hkd.recipe import options
from espnet_cif_hkd.recipe.machines import Machines, machines, require_machines

SETS = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_nodes", "0"], "--num_nodes must be 1 or more"),
        (["--hosts", "a,b c"], "'b c' is no name of a machine"),
        (["--hosts", "a;reboot"], "'a;reboot' is no name of a machine"),
        (["--hosts", "a,-v"], "is no name of a machine"),
        (["--hosts", "a:0,a:1"], "a machine is named twice"),
        (["--hosts", "a,b", "--num_nodes", "3"], "--num_nodes 3, but --hosts a,b"),
    ],
)
def test_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        options.parse([*SETS, *words])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "hosts", "expected"),
    [
        (1, "", Machines()),
        (2, "", Machines(2)),
        (1, "a", Machines(1, ("a",))),
        (1, "me@a,b:0:2", Machines(2, ("me@a", "b:0:2"))),
        (2, "a,b,", Machines(2, ("a", "b"))),
    ],
)
def test_what_the_options_mean(number: int, hosts: str, expected: Machines) -> None:
    assert machines(number, hosts) == expected


def test_one_machine_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    require_machines(Machines())


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({}, r"--num_nodes 2: this is no job of Slurm; name the machines .*--hosts"),
        ({"SLURM_JOB_ID": "7"}, r"but the job of Slurm has 1: .* --nodes 2"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "x"}, "the job of Slurm has x"),
    ],
)
def test_a_job_of_slurm_is_checked(
    job: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        require_machines(Machines(2))


def test_a_folder_that_launch_cannot_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my recipe"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"cannot change to '.*my recipe'"):
        require_machines(Machines(2, ("a", "b")))


def test_without_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--hosts: a: .*ssh"):
        require_machines(Machines(1, ("a",)))


@pytest.mark.parametrize(
    "word",
    ["", "plain", "two words", "it's", "$HOME", "`id`", "a\\b", '{"a": "$(id)"}'],
)
def test_words_survive_the_shell_of_launch(word: str) -> None:
    quoted = several._quoted(word)
    show = "import sys; print(repr(sys.argv[1]))"
    here = f"bash << EOF\n{sys.executable} -S -c '{show}' {quoted}\nEOF\n"
    done = subprocess.run(
        ["bash", "-c", here], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{word!r}\n"


def test_variables_that_ssh_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(several.USER_MODULE_VARIABLE, "mine")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = several.training_command(Machines(1, ("a",)), "m", ["--x"], 4, tmp_path)
    words = command[command.index("--") + 1 :]
    assert words[:2] == ["env", f"{several.USER_MODULE_VARIABLE}=mine"]
    assert not [word for word in words if word.startswith("PYTHONPATH")]
    assert command[command.index("--envfile") + 1] == "none"
    (tmp_path / "local").mkdir()
    (tmp_path / "local/path.sh").touch()
    command = several.training_command(Machines(1, ("a",)), "m", [], 4, tmp_path)
    assert command[command.index("--envfile") + 1] == "local/path.sh"
