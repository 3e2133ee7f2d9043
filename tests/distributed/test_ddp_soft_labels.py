"""``soft_labels``: two processes train as one process with both batches."""

import pytest
import torch
from ddp_steps import SHARES, assert_close, train
from espnet_parts import HYBRID
from ranks import run_ranks
from soft_levels import chars, criteria, spans_of, texts_of, to_unit, write_ctm
from tiny_model import slice_batch, tiny_batch, tiny_config, tiny_model
from tiny_speech import CHANGES
from tone_teacher import ALONE, speech_batch

ENCODER = {**tiny_config()["encoder_conf"], "num_blocks": 2}
HOSTS = {
    "cif": {},
    "hybrid": {**HYBRID, "model_conf": {"loss_normalizer": "espnet"}},
}
NAMES = (
    *("low_soft", "low_hard", "own_soft", "own_hard", "own_quantity"),
    *("phone_soft", "phone_hard", "output"),
)
SECONDS = (0.5, 0.9, 0.7, 1.0, 0.4, 0.8)


def model_of(host, folder):
    quiet = {"predictor_conf": {"dropout_rate": 0.0}}
    ctm = {"map": "alignment", "alignment": str(folder / "units.ctm")}
    levels = {
        "low": chars(folder, "layer:1", map="ctc", max_missing=100),
        "own": chars(folder, "layer:2", map="cif", **quiet),
        "phone": chars(folder, "layer:1", **ctm),
        "output": {"tap": "logits", "interpolation": 0.3, "lm_type": "table"},
    }
    changes = {**CHANGES, **ALONE, "encoder_conf": ENCODER, **HOSTS[host]}
    conf = {**changes.pop("model_conf", {}), **criteria(levels, token_type="char")}
    return tiny_model(**changes, model_conf=conf).double()


def batch_of(share=None, empty=False):
    """With ``empty`` the first process has no text at all."""
    batch = {**tiny_batch(6), **speech_batch(SECONDS, quiet=True)}
    batch["speech"] = batch["speech"].double()
    batch["text"] = torch.where(batch["text"] == 2, 3, batch["text"])
    if empty:
        batch["text_lengths"][SHARES[0]] = 0
        batch["text"][SHARES[0]] = -1
    if share is None:
        return batch
    names = batch.pop("utt_id")
    return {**slice_batch(batch, share), "utt_id": [names[n] for n in share]}


def align(folder, chosen):
    """Write alignments of some utterances."""
    batch = batch_of()
    texts, names = texts_of(batch), batch["utt_id"]
    spans = {n: spans_of(texts[n], SECONDS[n], seed=n) for n in chosen}
    aligned = {names[n]: (to_unit(texts[n]), spans[n]) for n in chosen}
    write_ctm(folder / "units.ctm", aligned)


def rank_trains(rank, host, folder, empty):
    batch = batch_of(SHARES[rank], empty)
    return train(model_of(host, folder), [batch], 1, distributed=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "empty", "aligned"),
    [
        ("cif", False, range(1, 6)),
        ("hybrid", False, SHARES[1]),
        ("cif", True, SHARES[1]),
    ],
)
def test_two_processes_equal_one(tmp_path, host, empty, aligned):
    """Without unused parameters, also if one process has no units or alignments."""
    align(tmp_path, aligned)
    ranks = run_ranks(rank_trains, host, tmp_path, empty)
    model = model_of(host, tmp_path)
    gradient, log = train(model, [batch_of(empty=empty)], 1, distributed=False)
    for moved, stats in ranks:
        assert_close(moved, gradient, rtol=1e-5, atol=1e-7)
        for name in (*(f"lm.loss_{one}" for one in NAMES), "loss"):
            assert stats[name] == pytest.approx(log[name], rel=1e-5), name
    heads = {key: value for key, value in gradient.items() if "heads" in key}
    assert len(heads) == 10 and all(value.any() for value in heads.values())
