"""ESPnet's own ``launch`` and ``asr_train``, as on two machines of a Slurm cluster.

Only Slurm is a stand-in: the two tasks run here, on CPU, so that ESPnet's launch takes
gloo instead of nccl.
"""

import os
import subprocess

import pytest
import torch
from tiny_training import training_words, write_training

# Of slurm.pl and srun only what ESPnet uses: options, a log file, a command; a task on
# each machine and gives it its number.
SLURM_PL = """#!/usr/bin/env bash
echo "$*" > asked
while [ "${1#--}" != "$1" ]; do shift 2; done
log=$1
shift
mkdir -p "$(dirname "${log}")"
"$@" >"${log}" 2>&1
"""
SRUN = """#!/usr/bin/env bash
shift  # --export=ALL
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST=here,there
SLURM_PROCID=0 SLURM_NODEID=0 SLURM_LOCALID=0 "$@" &
first=$!
SLURM_PROCID=1 SLURM_NODEID=1 SLURM_LOCALID=0 "$@"
second=$?
wait "${first}" && exit "${second}"
"""


@pytest.fixture
def recipe(tmp_path):
    """Data of 9 utterances for two ranks, the configuration and a tiny BERT."""
    write_training(tmp_path)
    return tmp_path


def command(folder, python):
    """What ESPnet's asr.sh runs for ``--num_nodes 2 --ngpu 0`` with Slurm."""
    ours = [python, "-m", "espnet_cif_hkd", "-m"]
    return [
        *(*ours, "espnet2.bin.launch", "--cmd", f"{folder}/bin/slurm.pl"),
        *("--log", "exp/train.log", "--ngpu", "0", "--num_nodes", "2"),
        *("--multiprocessing_distributed", "true", "--"),
        *(*ours, "espnet2.bin.asr_train", *training_words()),
    ]


@pytest.mark.slow
def test_two_machines_of_a_cluster_train_together(recipe, forked_python):
    for name, text in (("slurm.pl", SLURM_PL), ("srun", SRUN)):
        (recipe / "bin").mkdir(exist_ok=True)
        (recipe / "bin" / name).write_text(text)
        (recipe / "bin" / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{recipe}/bin:{os.environ['PATH']}"}
    launched = subprocess.run(
        command(recipe, forked_python),
        cwd=recipe,
        env={**environment, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    asked = "--gpu 0 --num_threads 1 --num_nodes 2"
    assert (recipe / "asked").read_text().startswith(asked)
    log = (recipe / "exp" / "train.log").read_text()
    assert ":0/2]" in log
    assert log.count("2epoch results: [train]") == 1 and "loss_acd=" in log
    state = torch.load(recipe / "exp" / "2epoch.pth", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state.values())
