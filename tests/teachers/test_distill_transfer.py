"""Tokens of a padded batch without a mask, and how often the criterion waits."""

import pytest
import torch
from hkd_batch import CHARS, CPU, STUDENT, TEXTS, batch, encode
from host_reads import Copies, Reads
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.distill import HKDCriterion
from espnet_cif_hkd.io.device import TokenPlaces
from espnet_cif_hkd.teachers.store.writer import dump_store
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig


@settings(max_examples=30)
@given(st.lists(st.integers(0, 5), max_size=5), st.integers(0, 3))
def test_tokens_are_those_of_the_mask(lengths, extra):
    shape = (len(lengths), max(lengths, default=0) + extra, 2)
    padded = torch.randn(shape, dtype=torch.float64)
    mask = torch.arange(shape[1])[None] < torch.tensor(lengths).reshape(-1, 1)
    padded[~mask] = float("nan")
    padded.requires_grad_()
    taken = TokenPlaces(lengths, CPU).take(padded)
    assert torch.equal(taken, padded[mask])
    taken.square().sum().backward()
    assert torch.equal(padded.grad[mask], 2 * padded[mask].detach())
    assert not padded.grad[~mask].any()


@pytest.mark.parametrize("where", ["stored", "online"])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
def test_the_criterion_waits_for_the_device_once(tmp_path, where, texts):
    """For the ids and all lengths together; neither losses nor gradients wait."""
    plm, store = build_tiny_bert(tmp_path / "plm"), None
    if where == "stored":
        store = str(tmp_path / "store")
        online = OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS)
        dump_store(tmp_path / "store", lambda: map(encode, texts), online, CPU)
    criterion = HKDCriterion(STUDENT, plm, HIDDEN, store).train()
    arguments = batch(texts)
    criterion(arguments)  # opens the store or the PLM
    reads = Reads()
    with Copies(reads.found), reads:
        output = criterion(arguments)
        (output.losses["loss_acd"] + output.losses["loss_lrd"]).backward()
    found = {k: n for k, n in reads.found.items() if k != "elsewhere"}
    assert found == {"distill.hkd": 1}
    for leaf in (arguments.fired.embeddings, arguments.states["output"]):
        assert leaf.grad.isfinite().all()
