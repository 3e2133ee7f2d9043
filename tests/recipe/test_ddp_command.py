"""ESPnet's own ``launch`` and ``asr_train``, as on two machines of a Slurm cluster.

Only Slurm is a stand-in: the two tasks run here, on CPU, so that ESPnet's launch takes
gloo instead of nccl.
"""

import os
import subprocess

import numpy as np
import pytest
import torch
import yaml
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import FEATURES, TOKENS

LETTERS = TOKENS[3:-1]
CONFIG = {
    "batch_type": "unsorted",
    "batch_size": 4,
    "max_epoch": 2,
    "optim": "adam",
    "optim_conf": {"lr": 0.01},
    "num_workers": 0,
    "num_att_plot": 1,
    "use_matplotlib": False,
    "use_tensorboard": False,
    "keep_nbest_models": 1,
    "token_type": "char",
    "input_size": FEATURES,
    "frontend": None,
    "specaug": None,
    "normalize": None,
    "encoder": "transformer",
    "encoder_conf": {
        "input_layer": "linear",
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
    },
    "decoder": "cif",
    "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
    "model": "cif",
}

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


def write_data(folder, name, n_utterances, seed):
    numbers = np.random.default_rng(seed)
    speech, text, shapes = [], [], []
    for n in range(n_utterances):
        utterance = f"{name}{n}"
        length = int(numbers.integers(16, 30))
        features = numbers.standard_normal((length, FEATURES)).astype(np.float32)
        np.save(folder / f"{utterance}.npy", features)
        letters = numbers.choice(LETTERS, size=int(numbers.integers(2, 6)))
        speech.append(f"{utterance} {folder}/{utterance}.npy\n")
        text.append(f"{utterance} {''.join(letters)}\n")
        shapes.append(f"{utterance} {length},{FEATURES}\n")
    for kind, lines in (("speech", speech), ("text", text), ("shape", shapes)):
        (folder / f"{name}.{kind}").write_text("".join(lines))


@pytest.fixture
def recipe(tmp_path):
    """Data of 9 utterances for two ranks, the configuration and a tiny BERT."""
    write_data(tmp_path, "train", 9, 0)
    write_data(tmp_path, "valid", 5, 1)
    (tmp_path / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    acoustic = {"num_negatives": 5, "share_negatives": True}
    conf = {
        "teacher": build_tiny_bert(tmp_path / "bert"),
        "teacher_dim": HIDDEN,
        "acoustic": acoustic,
    }
    config = CONFIG | {"model_conf": {"criterion": "hkd", "criterion_conf": conf}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def command(folder, python):
    """What ESPnet's asr.sh runs for ``--num_nodes 2 --ngpu 0`` with Slurm."""
    ours = [python, "-m", "espnet_cif_hkd", "-m"]
    data = [
        word
        for kind in ("train", "valid")
        for word in (
            *(f"--{kind}_data_path_and_name_and_type", f"{kind}.speech,speech,npy"),
            *(f"--{kind}_data_path_and_name_and_type", f"{kind}.text,text,text"),
            *(f"--{kind}_shape_file", f"{kind}.shape"),
        )
    ]
    return [
        *(*ours, "espnet2.bin.launch", "--cmd", f"{folder}/bin/slurm.pl"),
        *("--log", "exp/train.log", "--ngpu", "0", "--num_nodes", "2"),
        *("--multiprocessing_distributed", "true", "--"),
        *(*ours, "espnet2.bin.asr_train", "--config", "train.yaml"),
        *("--token_list", "tokens.txt", "--output_dir", "exp", *data),
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
