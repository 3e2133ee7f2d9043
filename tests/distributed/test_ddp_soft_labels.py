"""``soft_labels``: two processes train as one process with both batches."""

import pytest
import torch
from ddp_steps import SHARES, assert_close, train
from espnet_parts import HYBRID
from ranks import run_ranks
from soft_levels import chars, criteria
from tiny_model import slice_batch, tiny_batch, tiny_config, tiny_model

ENCODER = {**tiny_config()["encoder_conf"], "num_blocks": 2}
HOSTS = {
    "cif": {},
    "hybrid": {**HYBRID, "model_conf": {"loss_normalizer": "espnet"}},
}
NAMES = ("low_soft", "low_hard", "own_soft", "own_hard", "own_quantity", "output")


def model_of(host, folder):
    quiet = {"predictor_conf": {"dropout_rate": 0.0}}
    levels = {
        "low": chars(folder, "layer:1", map="ctc", max_missing=100),
        "own": chars(folder, "layer:2", map="cif", **quiet),
        "output": {"tap": "logits", "interpolation": 0.3, "lm_type": "table"},
    }
    changes = dict(HOSTS[host])
    conf = {**changes.pop("model_conf", {}), **criteria(levels, token_type="char")}
    return tiny_model(**changes, encoder_conf=ENCODER, model_conf=conf).double()


def batch_of(share=None, empty=False):
    """With ``empty`` the first process has no text at all."""
    batch = tiny_batch(6, dtype=torch.float64)
    batch["text"] = torch.where(batch["text"] == 2, 3, batch["text"])
    if empty:
        batch["text_lengths"][SHARES[0]] = 0
        batch["text"][SHARES[0]] = -1
    return batch if share is None else slice_batch(batch, share)


def rank_trains(rank, host, folder, empty):
    batch = batch_of(SHARES[rank], empty)
    return train(model_of(host, folder), [batch], 1, distributed=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "empty"), [("cif", False), ("hybrid", False), ("cif", True)]
)
def test_two_processes_equal_one(tmp_path, host, empty):
    """Without unused parameters, also if one process has no units."""
    ranks = run_ranks(rank_trains, host, tmp_path, empty)
    model = model_of(host, tmp_path)
    gradient, log = train(model, [batch_of(empty=empty)], 1, distributed=False)
    for moved, stats in ranks:
        assert_close(moved, gradient, rtol=1e-5, atol=1e-7)
        for name in (*(f"lm.loss_{one}" for one in NAMES), "loss"):
            assert stats[name] == pytest.approx(log[name], rel=1e-5), name
    heads = {key: value for key, value in gradient.items() if "heads" in key}
    assert len(heads) == 8 and all(value.any() for value in heads.values())
