"""Model hybrid: ESPnet's own loss unless asked otherwise, and criteria beside it."""

import argparse

import pytest
import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.bin.asr_inference import Speech2Text
from espnet2.tasks.asr import ASRTask
from espnet_parts import ENCODERS, HYBRID, RNN
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import (
    TOKENS,
    gradients,
    slice_batch,
    tiny_batch,
    tiny_config,
    tiny_model,
)

from espnet_cif_hkd.errors import UserError

# This encoder is masked throughout: outputs do not depend on padding.
INTERCTC = {
    "encoder": "transformer",
    "encoder_conf": {**ENCODERS["transformer"], "interctc_layer_idx": [1, 2]},
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


def build(kind="hybrid", **changes):
    return tiny_model(**{**HYBRID, **changes, "model": kind})


def step(model, batch=None, seed=3):
    torch.manual_seed(seed)
    batch = tiny_batch(4) if batch is None else batch
    loss, stats, weight = model.train()(**{k: v.clone() for k, v in batch.items()})
    model.zero_grad()
    loss.sum().backward()
    return loss, stats, weight, gradients(model)


def hkd(bert, **options):
    conf = {"teacher": bert, "teacher_dim": HIDDEN, **options}
    return {"criterion": "hkd", "criterion_conf": conf}


@pytest.mark.parametrize(
    ("changes", "model_conf"),
    [
        ({}, {"ctc_weight": 0.3}),
        ({}, {"ctc_weight": 0.0, "length_normalized_loss": True}),
        ({}, {"ctc_weight": 1.0}),
        (INTERCTC, {"ctc_weight": 0.3, "interctc_weight": 0.5}),
        (RNN, {"ctc_weight": 0.3}),
    ],
)
def test_without_criteria_it_is_espnets_model(changes, model_conf):
    ours = build(**changes, model_conf=model_conf)
    espnets = build("espnet", **changes, model_conf=model_conf)
    assert type(espnets) is ESPnetASRModel
    assert list(ours.state_dict()) == list(espnets.state_dict())
    results = [step(ours), step(espnets)]
    for a, b in zip(*(result[:3] for result in results)):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            a, b = (torch.cat([v for v in x.values() if v is not None]) for x in (a, b))
        assert torch.equal(a, b)
    ours_gradients, theirs = results[0][3], results[1][3]
    assert ours_gradients.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], g) for name, g in ours_gradients.items())
    for model in (ours, espnets):
        model.eval()
    with torch.no_grad():
        valid = [model(**tiny_batch(4))[1] for model in (ours, espnets)]
    assert valid[0].keys() == valid[1].keys()
    assert float(valid[0]["loss"]) == float(valid[1]["loss"])


@pytest.mark.parametrize(
    ("changes", "model_conf"),
    [({}, {"ctc_weight": 0.3}), (INTERCTC, {"interctc_weight": 0.5})],
)
def test_per_token_any_split_equals_one_batch(changes, model_conf):
    """ESPnet's trainer: (sum of loss x weight) / (sum of weight) over processes."""
    conf = {"loss_normalizer": "token", "length_normalized_loss": True, **model_conf}
    model, batch = build(**changes, model_conf=conf), tiny_batch(5)
    loss, stats, weight, complete = step(model, batch)
    assert int(weight) == int((batch["text_lengths"] + 1).sum())
    espnets = build("espnet", **changes, model_conf=model_conf)
    assert float(loss.detach() * weight) == pytest.approx(
        float(step(espnets, batch)[0].detach()) * 5
    )
    parts = [model(**slice_batch(batch, c)) for c in ([0], [1, 2, 3], [4])]
    total = sum(part[0] * part[2] for part in parts) / weight
    model.zero_grad()
    total.sum().backward()
    torch.testing.assert_close(total, loss)
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, complete[name], rtol=1e-4, atol=1e-5)
    for name in ("loss_att", "loss_ctc"):
        mean = sum(part[1][name] * part[2] for part in parts) / weight
        torch.testing.assert_close(mean, stats[name])


@pytest.mark.parametrize("normalizer", ["espnet", "token"])
def test_states_are_taught(bert, normalizer):
    """LRD alone: its sum is divided as the attention loss is."""
    conf = {"loss_normalizer": normalizer, **hkd(bert, acoustic=None)}
    model, batch = build(model_conf=conf), tiny_batch(4)
    outputs = []
    model.criterion.register_forward_hook(lambda *hooked: outputs.append(hooked))
    loss, stats, weight, reached = step(model, batch)
    taps, output = outputs[0][1][0], outputs[0][2]
    assert set(taps.states) == {"output"} and taps.fired is None
    lrd = float(output.losses["loss_lrd"].detach())
    assert float(stats["loss_lrd"]) == pytest.approx(lrd / int(weight))
    assert reached["decoder.embed.0.weight"].any()
    plain, *_ = step(build(model_conf={"loss_normalizer": normalizer}), batch)
    torch.testing.assert_close(loss, plain + 0.01 * lrd / weight)
    assert float(stats["loss"]) == float(loss.detach())
    # The states are what the output layer reads.
    logits = model.decoder.output_layer(taps.states["output"])
    hs = model.encode(batch["speech"], batch["speech_lengths"])
    from espnet_cif_hkd.plugin.compat import add_sos_eos

    ys_in, _ = add_sos_eos(batch["text"], model.sos, model.eos, -1)
    expected, _ = model.decoder(*hs, ys_in, batch["text_lengths"] + 1)
    torch.testing.assert_close(logits, expected)


def test_acd_says_what_the_model_lacks(bert):
    with pytest.raises(UserError, match="criterion hkd needs fired vectors; model: hy"):
        build(model_conf=hkd(bert))
    with pytest.raises(UserError, match="needs the tap 'states:output'"):
        build(**RNN, model_conf=hkd(bert, acoustic=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "cif", "decoder_conf": {}}, "needs an attention decoder, got CIF"),
        ({"model_conf": {"loss_normalizer": "frame"}}, "'frame'; use espnet or token"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)


def test_checkpoints_of_espnet_load_and_stock_inference_decodes(tmp_path, bert):
    """A hybrid model with a criterion takes ESPnet's parameters, and decodes as it."""
    import yaml

    found = []
    for name, model_conf in (("espnet", {}), ("hybrid", hkd(bert, acoustic=None))):
        config = {**tiny_config(**HYBRID, model_conf=model_conf), "model": name}
        config |= {"token_type": "char", "bpemodel": None}
        if name == "espnet":
            torch.manual_seed(1)
            model = ASRTask.build_model(argparse.Namespace(**config))
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
            torch.save(model.state_dict(), tmp_path / "espnet.pth")
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        speech2text = Speech2Text(
            str(tmp_path / f"{name}.yaml"),
            str(tmp_path / "espnet.pth"),
            beam_size=3,
            maxlenratio=-6.0,
        )
        with torch.no_grad():
            found.append(speech2text(torch.randn(20, 6, generator=seeded())))
    assert found[0][0][0] == found[1][0][0] and found[0][0][2] == found[1][0][2]
    assert float(found[0][0][3].score) == float(found[1][0][3].score)
    assert len(TOKENS) == 12


def seeded():
    return torch.Generator().manual_seed(9)
