"""Writes gradients.npz: run with the code of 0.2.0 on PYTHONPATH.

    PYTHONPATH=V02:V02/tests python3 tests/data/v02/make_gradients.py

V02 is a checkout of commit 73b6dda. Parameters, one batch and the gradients of all
parameters are stored, with the torch and the processor that computed them.
"""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import torch
from tiny_model import CIF_CONFORMER, tiny_batch, tiny_model

DIM = 10
CONF = {
    "criterion": "hkd",
    "criterion_conf": {
        "teacher": "replaced",
        "teacher_dim": DIM,
        "acoustic": {"temperature": 0.1, "num_negatives": 6},
        "linguistic": {"weight": 0.03},
    },
}


class TableTeacher:
    """A vector for each pair of neighbouring tokens; needs no language model."""

    def __init__(self, vocab_size):
        shape = (vocab_size, vocab_size, DIM)
        table = np.random.default_rng(7).standard_normal(shape, dtype=np.float32)
        self.table = torch.from_numpy(table)

    def features(self, sequences, device):
        rows = []
        for ids in sequences:
            path = [0, *ids, len(self.table) - 1]
            rows += [self.table[a, b] for a, b in itertools.pairwise(path)]
        return torch.stack(rows).to(device)


def processor():
    """The model of the processor, on which the bits depend."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else ''} {torch.backends.cpu.get_cpu_capability()}"


def step(parameters=None):
    """A training step, dropout included: the model, its loss and its log."""
    torch.set_num_threads(1)
    model = tiny_model(seed=5, **CIF_CONFORMER, model_conf=CONF).train()
    if parameters is not None:
        torch.nn.utils.vector_to_parameters(parameters, model.parameters())
    model.criterion._teacher = TableTeacher(model.vocab_size)
    torch.manual_seed(3)
    loss, stats, _ = model(**tiny_batch(4, seed=1))
    loss.sum().backward()
    return model, loss, stats


def flat(tensors):
    """All values, one after the other."""
    return torch.cat([tensor.detach().flatten().float() for tensor in tensors])


def main():
    """Write the file."""
    model, _, stats = step()
    log = {name: float(v) for name, v in stats.items() if v is not None}
    path = Path(__file__).with_name("gradients.npz")
    np.savez_compressed(
        path,
        torch=np.array(torch.__version__.partition("+")[0]),
        processor=np.array(processor()),
        log=np.array(json.dumps(log)),
        names=np.array([name for name, _ in model.named_parameters()]),
        values=flat(model.parameters()).numpy(),
        gradients=flat(p.grad for p in model.parameters()).numpy(),
    )
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
