"""cmd.sh and the schedulers' files: ESPnet's conventions, one copy for all recipes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "egs2" / "TEMPLATE" / "asr_hkd"
FILES = ["cmd.sh", "conf/slurm.conf", "conf/pbs.conf", "conf/queue.conf"]
RECIPES = sorted(path.parent for path in ROOT.glob("egs2/*/asr_hkd/run.sh"))
JHU_GPU = "queue-freegpu.pl --mem 2G --gpu 1 --config conf/queue.conf"
BACKENDS = {
    "local": ["run.pl"] * 3,
    "stdout": ["stdout.pl"] * 3,
    "sge": ["queue.pl"] * 3,
    "slurm": ["slurm.pl"] * 3,
    "pbs": ["pbs.pl"] * 3,
    "ssh": ["ssh.pl"] * 3,
    "jhu": ["queue.pl --mem 2G", JHU_GPU, "queue.pl --mem 4G"],
}
# Takes the place of the scheduler: runs the job at once.
SUBMIT = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> calls
bash "${@: -1}" >/dev/null 2>&1
echo 'Submitted batch job 17'
echo 'Your job 17 ("x") has been submitted'
"""


def espnet_template():
    return Path(os.environ["ESPNET_ROOT"]) / "egs2" / "TEMPLATE" / "asr1"


def source(cmd_sh, backend, folder):
    """Three commands that asr.sh reads, for a ``cmd_backend`` edited as users do."""
    text = cmd_sh.read_text()
    assert text.count("cmd_backend='local'") == 1
    (folder / "cmd.sh").write_text(text.replace("='local'", f"='{backend}'"))
    show = 'printf "%s\\n" "${train_cmd}" "${cuda_cmd}" "${decode_cmd}"'
    return subprocess.run(
        ["bash", "-euc", f". ./cmd.sh; bash -euc '{show}'"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_every_recipe_uses_the_files_of_the_template(recipe):
    for name in [*FILES, "asr.sh", "local/options.sh"]:
        assert (recipe / name).read_bytes() == (TEMPLATE / name).read_bytes(), name
        # A source archive has copies.
        if recipe != TEMPLATE and (ROOT / ".git").exists():
            assert (recipe / name).is_symlink(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_gives_three_commands(backend, tmp_path):
    sourced = source(TEMPLATE / "cmd.sh", backend, tmp_path)
    assert sourced.returncode == 0, sourced.stderr
    assert sourced.stdout.splitlines() == BACKENDS[backend]


@pytest.mark.espnet_checkout
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_commands_are_espnets(backend, tmp_path):
    theirs = source(espnet_template() / "cmd.sh", backend, tmp_path)
    assert theirs.stdout.splitlines() == BACKENDS[backend], theirs.stderr


def test_an_unknown_backend_is_reported(tmp_path):
    sourced = source(TEMPLATE / "cmd.sh", "lsf", tmp_path)
    assert sourced.returncode != 0 and sourced.stdout == ""
    assert sourced.stderr.startswith("error: cmd.sh: cmd_backend='lsf': choose local")


@pytest.mark.espnet_checkout
@pytest.mark.parametrize(
    ("script", "submit", "expected"),
    [
        ("slurm.pl", "sbatch", ["-p gpu --gres=gpu:4", "--nodes 2", "--job-name asr"]),
        ("pbs.pl", "qsub", ["-l ngpus=4", "-l nodes=2:ppn=1", "-N asr"]),
        ("queue.pl", "qsub", ["-l gpu=4 -q g.q", "-pe mpi 2", "-N asr"]),
    ],
)
def test_espnets_scripts_read_our_files(script, submit, expected, tmp_path):
    program = espnet_template() / "utils" / script
    shutil.copytree(TEMPLATE / "conf", tmp_path / "conf")
    (tmp_path / "logs" / "q").mkdir(parents=True)
    (tmp_path / "path.sh").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / submit).write_text(SUBMIT)
    (tmp_path / "bin" / submit).chmod(0o755)
    done = subprocess.run(
        [
            *("perl", str(program), "--name", "asr", "--gpu", "4"),
            *("--num_threads", "4", "--num_nodes", "2", "logs/x.log", "echo", "ran"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    called = (tmp_path / "calls").read_text()
    assert all(words in called for words in expected), called + done.stderr
    assert "ran" in (tmp_path / "logs" / "x.log").read_text()
