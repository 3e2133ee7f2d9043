"""``ctc_guide_weight`` in the model: off as before, late, refused where impossible."""

import pytest
import torch
from tiny_model import gradients, tiny_batch, tiny_model

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.ctc_guide import (
    ctc_guide_loss,
    ctc_spike_loss,
    ctc_spikes,
)


def model_of(**conf):
    return tiny_model(model_conf={f"ctc_guide_{k}": v for k, v in conf.items()})


def test_off_changes_no_bit_and_no_key():
    off, plain = model_of(weight=0.0, start=5), tiny_model()
    assert off.state_dict().keys() == plain.state_dict().keys()
    batch = tiny_batch()
    losses = []
    for model in (off, plain):
        loss, stats, _ = model.train()(**batch)
        loss.sum().backward()
        losses.append(loss)
        assert "loss_ctc_guide" not in stats
    assert torch.equal(*losses)
    for name, grad in gradients(off).items():
        assert torch.equal(grad, gradients(plain)[name])


def expected_loss(kind, plain, hs_pad, hlens, text_lengths, spikes):
    if kind == "spikes":  # weights as the predictor gives them
        return ctc_spike_loss(plain.decoder.predictor(hs_pad, hlens), spikes)
    fired = plain.decoder.fire(hs_pad, hlens, text_lengths + 1)
    return ctc_guide_loss(fired.alpha, spikes, 0.1)


@pytest.mark.parametrize("kind", ["sum", "spikes"])
def test_it_adds_the_guide_per_token_and_trains_the_predictor(kind):
    model, plain = model_of(weight=0.7, slack=0.1, kind=kind), tiny_model()
    batch = tiny_batch()
    loss, stats, n_tokens = model.train()(**batch)
    plain.train()
    with torch.no_grad():
        hs_pad, hlens = plain.encode(batch["speech"], batch["speech_lengths"])
        logp = plain.ctc.log_softmax(hs_pad)
        spikes = ctc_spikes(logp, hlens, batch["text"], batch["text_lengths"])
        lengths = batch["text_lengths"]
        expected = expected_loss(kind, plain, hs_pad, hlens, lengths, spikes) / n_tokens
    assert (spikes >= 0).sum() == batch["text_lengths"].sum()
    assert float(expected) > 0
    assert float(stats["loss_ctc_guide"]) == pytest.approx(float(expected), rel=1e-5)
    before = plain(**batch)[0]
    torch.testing.assert_close(loss, before + 0.7 * stats["loss_ctc_guide"])
    loss.sum().backward()
    before.sum().backward()
    found, old = gradients(model), gradients(plain)
    assert not torch.allclose(
        found["decoder.predictor.conv.weight"], old["decoder.predictor.conv.weight"]
    )
    # The guide does not train CTC.
    assert torch.equal(found["ctc.ctc_lo.weight"], old["ctc.ctc_lo.weight"])


def test_it_starts_after_some_updates_also_of_a_resumed_training():
    model = model_of(weight=0.7, start=2).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    logged = []
    for step in range(4):
        if step == 1:
            again = model_of(weight=0.7, start=2).train()
            again.load_state_dict(model.state_dict())
            model, optimizer = again, torch.optim.SGD(again.parameters(), lr=0.01)
        optimizer.zero_grad()
        loss, stats, _ = model(**tiny_batch())
        logged.append("loss_ctc_guide" in stats)
        loss.sum().backward()
        optimizer.step()
    assert logged == [False, False, True, True]
    with torch.no_grad():
        _, stats, _ = model_of(weight=0.7, start=9).eval()(**tiny_batch())
    assert "loss_ctc_guide" in stats


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"ctc_guide_weight": -1}, "ctc_guide_weight is -1; it must be"),
        ({"ctc_guide_weight": "1e-2"}, "ctc_guide_weight is '1e-2'; it must be"),
        ({"ctc_guide_slack": float("nan")}, "ctc_guide_slack is nan; it must be"),
        ({"ctc_guide_kind": "frames"}, "ctc_guide_kind is 'frames'; it must be sum or"),
        ({"ctc_guide_start": 1.5}, "ctc_guide_start is 1.5; it must be"),
        ({"ctc_guide_weight": 1.0, "ctc_weight": 0.0}, "ctc_guide_weight needs CTC"),
    ],
)
def test_a_wrong_value_is_one_line(conf, message):
    with pytest.raises(UserError, match=message) as error:
        tiny_model(model_conf=conf)
    assert "\n" not in str(error.value)
