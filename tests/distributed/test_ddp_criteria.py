"""Criteria by frames and by tokens: two processes train as one with both batches."""

import pytest
import recorder
from ddp_steps import SHARES, TEACHER_DIM, TableTeacher, assert_close, batch_of, train
from espnet_parts import HYBRID
from ranks import run_ranks
from tiny_model import tiny_model

pytestmark = pytest.mark.slow

assert recorder  # registers the criterion "mean_frame"
CRITERIA = {
    "frames": {"type": "mean_frame", "layer": 1, "weight": 3.0},
    "text": {"type": "hkd", "teacher": "replaced", "teacher_dim": TEACHER_DIM},
}
# No batch statistics: those of two batches differ from those of one.
HOSTS = {
    "cif": {"model_conf": {}},
    "hybrid-token": {**HYBRID, "model_conf": {"loss_normalizer": "token"}},
    "hybrid-espnet": {**HYBRID, "model_conf": {"loss_normalizer": "espnet"}},
}


def model_of(host):
    changes = HOSTS[host]
    levels = {"acoustic": {"temperature": 0.1, "num_negatives": "all"}}
    levels["acoustic"]["share_negatives"] = True
    if host != "cif":
        levels = {"acoustic": None}
    criteria = {**CRITERIA, "text": {**CRITERIA["text"], **levels}}
    conf = {**changes["model_conf"], "criteria": criteria}
    model = tiny_model(**{**changes, "model_conf": conf}).double()
    model.criteria["text"]._teacher = TableTeacher(model.vocab_size)
    return model


def rank_trains(rank, host):
    return train(model_of(host), [batch_of(SHARES[rank])], 100 + rank, distributed=True)


@pytest.mark.parametrize("host", HOSTS)
def test_two_processes_equal_one(host):
    """Without unused parameters; the ranks have other numbers of frames and tokens."""
    ranks = run_ranks(rank_trains, host)
    gradient, log = train(model_of(host), [batch_of()], 0, distributed=False)
    assert {"frames.loss_frame", "text.loss_lrd"} <= set(log)
    for moved, stats in ranks:
        assert_close(moved, gradient, rtol=1e-5, atol=1e-6)
        for name in ("frames.loss_frame", "text.loss_lrd", "loss"):
            assert stats[name] == pytest.approx(log[name], rel=1e-5), name
    moved = max(float(g.abs().max()) for k, g in gradient.items() if "project" in k)
    assert moved > 1e-3


def rank_validates(rank, host):
    """Frames of this process alone: rank 0 plots attention while others wait."""
    model = model_of(host).eval()
    if rank == 0:
        return float(model(**batch_of([0, 1]))[1]["frames.loss_frame"])
    return None


def test_validation_needs_no_other_process():
    alone = model_of("cif").eval()(**batch_of([0, 1]))[1]["frames.loss_frame"]
    assert run_ranks(rank_validates, "cif")[0] == pytest.approx(float(alone))
