"""Options ``ctc_guide_*``: off as before, late, refused where impossible."""

import pytest
import torch
from tiny_model import gradients, tiny_batch, tiny_model

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.ctc_guide import (
    ctc_drift,
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


def fired_of(model, batch, ends=None):
    """Vectors for known tokens, and CTC's spikes."""
    with torch.no_grad():
        hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
        logp, lengths = model.ctc.log_softmax(hs_pad), batch["text_lengths"]
        spikes = ctc_spikes(logp, hlens, batch["text"], lengths)
        assert (spikes >= 0).sum() == lengths.sum()
        ends = spikes if ends else None
        fired = model.decoder.fire(hs_pad, hlens, lengths + 1, segment_ends=ends)
    return fired, spikes


@pytest.mark.parametrize("decoder", ["cif", "cif_nar"])
def test_segments_fire_each_token_at_its_spike(decoder, monkeypatch):
    conf = {"decoder": decoder, "model_conf": {"ctc_guide_scaling": "segments"}}
    model, batch = tiny_model(**conf).eval(), tiny_batch()
    seen = []
    fire = model.decoder.fire
    monkeypatch.setattr(
        model.decoder, "fire", lambda *a, **k: seen.append(fire(*a, **k)) or seen[-1]
    )
    _, stats, _ = model.train()(**batch)
    assert "loss_ctc_guide" not in stats  # the scaling is no loss
    fired, spikes = fired_of(model, batch, ends=True)
    torch.testing.assert_close(seen[0].embeddings, fired.embeddings)
    used = 0
    for b, length in enumerate(batch["text_lengths"].tolist()):
        if spikes[b, length - 1] < fired.frame_lengths[b] - 1:
            times = seen[0].firing_times[b, :length]
            assert torch.equal(times, spikes[b, :length] + 1.0)
            used += 1
    assert used
    # The number of tokens in recognition depends on the sum of the unscaled alpha.
    plain, _ = fired_of(tiny_model(decoder=decoder), batch)
    assert torch.equal(fired.quantity, plain.quantity)
    assert not torch.allclose(fired.embeddings, plain.embeddings)


def test_the_loss_of_the_spikes_is_the_same_beside_segments():
    batch, found = tiny_batch(), []
    for scaling in ("utterance", "segments"):
        for kind in ("sum", "spikes"):
            model = model_of(weight=0.7, slack=0.1, kind=kind, scaling=scaling)
            stats = model.train()(**batch)[1]
            found.append((float(stats["loss_ctc_guide"]), float(stats["drift"])))
    assert found[:2] == found[2:]
    assert min(found[0]) > 0


def test_segments_start_after_some_updates():
    losses = []
    for conf in ({}, {"scaling": "segments", "start": 1}, {"scaling": "segments"}):
        model, logged = model_of(**conf).train(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(**tiny_batch())[0]
            loss.sum().backward()
            optimizer.step()
            logged.append(float(loss.detach()))
        losses.append(logged)
    never, late, early = losses
    assert never[0] == late[0] != early[0]
    assert never[1] != late[1]


def test_validation_reports_the_drift():
    batch, model = tiny_batch(), tiny_model().eval()
    fired, spikes = fired_of(model, batch)
    expected = ctc_drift(fired.alpha, spikes).abs().sum() / batch["text_lengths"].sum()
    stats = model(**batch)[1]
    assert float(stats["drift"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(expected) > 0
    # A loss for 16 bits is computed in as many bits as without autocast.
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**batch)[1]["drift"].dtype is torch.float32
    assert "drift" not in tiny_model(model_conf={"ctc_weight": 0.0}).eval()(**batch)[1]


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"ctc_guide_weight": -1}, "ctc_guide_weight is -1; it must be"),
        ({"ctc_guide_weight": "1e-2"}, "ctc_guide_weight is '1e-2'; it must be"),
        ({"ctc_guide_slack": float("nan")}, "ctc_guide_slack is nan; it must be"),
        ({"ctc_guide_kind": "frames"}, "ctc_guide_kind is 'frames'; it must be sum or"),
        ({"ctc_guide_start": 1.5}, "ctc_guide_start is 1.5; it must be"),
        ({"ctc_guide_weight": 1.0, "ctc_weight": 0.0}, "ctc_guide_weight 1.0 needs"),
        (
            {"ctc_guide_scaling": "token"},
            "ctc_guide_scaling is 'token'; it must be utt",
        ),
        (
            {"ctc_guide_scaling": "segments", "ctc_weight": 0.0},
            "ctc_guide_scaling segments needs CTC",
        ),
        ({"ctc_guide_firing": 1}, "ctc_guide_firing is 1; it must be alpha or spikes"),
        (
            {"ctc_guide_firing": "spikes", "ctc_weight": 0.0},
            "ctc_guide_firing spikes needs CTC",
        ),
        (
            {"ctc_guide_firing": "spikes", "ctc_guide_threshold": 1.0},
            "ctc_guide_threshold is 1.0; it must be a number between 0 and 1",
        ),
        ({"ctc_guide_threshold": 0.5}, "ctc_guide_threshold is of ctc_guide_firing"),
    ],
)
def test_a_wrong_value_is_one_line(conf, message):
    with pytest.raises(UserError, match=message) as error:
        tiny_model(model_conf=conf)
    assert "\n" not in str(error.value)
