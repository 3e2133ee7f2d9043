"""``model: pretrain`` and ``frames``: two processes train as one with both batches."""

import pytest
import torch
from ddp_steps import assert_close, train
from ranks import run_ranks
from tone_teacher import ALONE, pretrain_model, recordings_of, speech_batch, stored

pytestmark = pytest.mark.slow

SHARES = ([0, 1], [2, 3, 4])
SECONDS = (0.5, 0.9, 0.7, 1.1, 0.4)


def share_of(batch, chosen):
    return {key: batch[key][chosen] for key in ("speech", "speech_lengths")}


@pytest.fixture
def teachers(tmp_path):
    """The second teacher lacks all utterances of the first process."""
    recordings = recordings_of(speech_batch(SECONDS, quiet=True))
    made = {
        "one": stored(tmp_path / "one", recordings),
        "two": stored(tmp_path / "two", recordings[2:], teacher_conf={"seed": 2}),
    }
    made["two"]["weight"] = 0.5
    return made


def model_of(teachers, combine="heads"):
    model = pretrain_model(teachers, ALONE, ignore_missing=True, combine=combine)
    return model.double()


def batch_of():
    batch = speech_batch(SECONDS, quiet=True)
    return {
        "speech": batch["speech"].double(),
        "speech_lengths": batch["speech_lengths"],
    }


def rank_trains(rank, teachers):
    batch = share_of(batch_of(), SHARES[rank])
    return train(model_of(teachers), [batch], 1, distributed=True)


def test_two_processes_equal_one(teachers):
    """Without unused parameters, although one process has nothing of one teacher."""
    ranks = run_ranks(rank_trains, teachers)
    gradient, log = train(model_of(teachers), [batch_of()], 1, distributed=False)
    for moved, stats in ranks:
        assert_close(moved, gradient, rtol=1e-5, atol=1e-7)
        assert stats["loss"] == pytest.approx(log["loss"], rel=1e-5)
        for name in ("frames.loss_one", "frames.loss_two"):
            assert stats[name] == pytest.approx(log[name], rel=1e-5), name
    heads = [value for key, value in gradient.items() if "heads" in key]
    assert len(heads) == 4 and all(float(value.abs().max()) > 1e-4 for value in heads)


def rank_prepares(rank, teachers):
    model = model_of(teachers).train()
    model(**share_of(batch_of(), SHARES[rank]))
    return {k: v for k, v in model.state_dict().items() if "statistics" in k}


def test_all_processes_have_the_same_statistics(teachers):
    first, second = run_ranks(rank_prepares, teachers)
    assert_close(first, second, rtol=0, atol=0)
    assert all(float(v.min()) > 0 for k, v in first.items() if k.endswith("std"))


def rank_validates(rank, teachers):
    model = model_of(teachers).eval()
    with torch.no_grad():
        if rank == 0:
            return float(model(**share_of(batch_of(), SHARES[1]))[1]["frames.loss_two"])
    return None


def test_validation_needs_no_other_process(teachers):
    alone = model_of(teachers).eval()(**share_of(batch_of(), SHARES[1]))[1]
    found = run_ranks(rank_validates, teachers)[0]
    assert found == pytest.approx(float(alone["frames.loss_two"]))
