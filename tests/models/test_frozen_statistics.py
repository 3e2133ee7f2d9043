"""ESPnet's ``freeze_param``: a frozen encoder keeps its running statistics, too."""

import pytest
import torch
from ddp_steps import assert_close
from espnet_parts import ENCODERS, HYBRID
from tiny_model import CIF_CONFORMER, tiny_batch, tiny_model

HOSTS = {"cif": {}, "hybrid": HYBRID}
STUDENTS = {
    "cif_conformer": CIF_CONFORMER,
    "conformer": {"encoder": "conformer", "encoder_conf": ENCODERS["conformer"]},
}


def statistics(model):
    return {
        key: value.clone()
        for key, value in model.encoder.state_dict().items()
        if "running" in key or "num_batches" in key
    }


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("encoder", STUDENTS)
def test_statistics_of_a_frozen_encoder_do_not_move(host, encoder):
    model = tiny_model(**{**HOSTS[host], **STUDENTS[encoder]})
    model.encoder.requires_grad_(False)
    before = statistics(model)
    assert before
    model.train()
    model(**tiny_batch())[0].backward()
    assert model.encoder.training
    assert_close(statistics(model), before, rtol=0, atol=0)
    model.encoder.requires_grad_(True)
    model.train()
    model(**tiny_batch())
    after = statistics(model)
    assert all(not torch.equal(after[key], before[key]) for key in before)
