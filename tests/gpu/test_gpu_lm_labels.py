"""A language model gives on a GPU the labels that it gives on the CPU."""

import pytest
import torch
from tiny_bert import CHINESE
from tiny_hf_lm import build_masked
from tiny_lm import TOKENS, build_tiny_lm

from espnet_cif_hkd.teachers.lm.quality import Sample, measure
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher
from espnet_cif_hkd.teachers.lm.stored import StoredLM
from espnet_cif_hkd.teachers.store.writer import dump_store

pytestmark = pytest.mark.gpu
CHARS = ["<blank>", "<unk>", *CHINESE, "<sos/eos>"]
ITEMS = [[2, 3, 4, 5, 6], [], [3], [7, 1, 2, 2]]


@pytest.mark.parametrize("kind", ["transformer", "seq_rnn", "hf_masked", "uniform"])
def test_labels_are_those_of_the_cpu(device, tmp_path, kind):
    tokens = CHARS if kind == "hf_masked" else TOKENS
    build = build_masked if kind == "hf_masked" else build_tiny_lm
    name = build(
        tmp_path / "lm", *([kind] if kind in ("transformer", "seq_rnn") else [])
    )
    named = kind if kind in ("hf_masked", "uniform") else "espnet"
    conf = {"lm": name, "lm_type": named, "top_k": 3}

    def teacher():
        return build_lm_teacher(conf, tokens)

    cpu = torch.device("cpu")
    expected, logs = teacher().evaluate(ITEMS, cpu)
    found, found_logs = teacher().evaluate(ITEMS, torch.device(device))
    assert found.tensors["ids"].device.type == torch.device(device).type
    assert torch.equal(found.tensors["ids"].cpu(), expected.tensors["ids"])
    shares = expected.tensors["probabilities"]
    torch.testing.assert_close(
        found.tensors["probabilities"].cpu(), shares, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(found_logs.cpu(), logs, rtol=1e-4, atol=1e-4)
    sample = Sample(ITEMS, 100, len(tokens))
    quality, _ = measure(teacher(), sample, torch.device(device))
    assert quality is not None and quality.n_units == 9
    store = tmp_path / "store"
    dump_store(store, lambda: ITEMS, teacher(), torch.device(device))
    read = StoredLM(str(store), teacher()).targets(ITEMS, torch.device(device))
    assert torch.equal(read.tensors["ids"].cpu(), expected.tensors["ids"])
