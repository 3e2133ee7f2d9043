"""ESPnet's own ``asr_train`` in two processes on a machine without a GPU.

A scheduler starts one process for each rank and tells it who it is; here the test
does, with the options that ``espnet2.bin.launch`` passes on (gloo instead of nccl).
"""

import socket
import subprocess
import sys

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


def command(folder, rank, port):
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
        *(sys.executable, "-m", "espnet_cif_hkd", "-m", "espnet2.bin.asr_train"),
        *("--config", "train.yaml", "--token_list", "tokens.txt"),
        *("--output_dir", "exp", "--ngpu", "0", *data),
        *("--multiprocessing_distributed", "false", "--dist_backend", "gloo"),
        *("--dist_world_size", "2", "--dist_rank", str(rank)),
        *("--dist_master_addr", "127.0.0.1", "--dist_master_port", str(port)),
    ]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_train_as_a_scheduler_starts_them(recipe, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    port = free_port()
    logs = [(recipe / f"rank{rank}.log").open("w+") for rank in range(2)]
    ranks = [
        subprocess.Popen(
            command(recipe, rank, port), cwd=recipe, stdout=log, stderr=log
        )
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [process.wait(timeout=180) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    told = [(recipe / f"rank{rank}.log").read_text() for rank in range(2)]
    assert codes == [0, 0], told[0][-3000:] + told[1][-3000:]
    assert ":0/2]" in told[0]
    assert "2epoch results: [train]" in told[0] and "loss_acd=" in told[0]
    state = torch.load(recipe / "exp" / "2epoch.pth", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state.values())
