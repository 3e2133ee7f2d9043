"""The one-pass decoder in the model: alone, and beside the autoregressive one."""

import pytest
import torch
from tiny_model import CIF_CONFORMER, gradients, slice_batch, tiny_batch, tiny_model
from tiny_speech import CHANGES, model_files, noise

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.losses.token import shift_targets
from espnet_cif_hkd.search.nar import one_pass_search

NO_DROPOUT = {
    "attention_heads": 2,
    "linear_units": 16,
    "num_blocks": 1,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "self_attention_dropout_rate": 0.0,
}
ALONE = {
    "decoder": "cif_nar",
    "decoder_conf": {**NO_DROPOUT, "predictor_conf": {"dropout_rate": 0.0}},
}


def alone(**options):
    conf = {**ALONE["decoder_conf"], **options}
    return tiny_model(**{**ALONE, "decoder_conf": conf}, **CIF_CONFORMER)


def beside(nar_conf=None, **model_conf):
    conf = {"nar_conf": {**NO_DROPOUT, **(nar_conf or {})}, **model_conf}
    return tiny_model(model_conf=conf, **CIF_CONFORMER)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_alone_is_the_cross_entropy_per_token(smoothing):
    model, batch = alone().eval(), tiny_batch()
    model.lsm_weight = smoothing
    _, stats, weight = model(**batch)
    hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    total = 0.0
    for n, hs in enumerate(hs_pad):
        tokens = [*batch["text"][n, : batch["text_lengths"][n]].tolist(), model.eos]
        length = torch.tensor([len(tokens)])
        fired = model.decoder.fire(hs[None, : hlens[n]], hlens[n : n + 1], length)
        logp = model.decoder.predict(fired.embeddings, length)[0].log_softmax(-1)
        total = total - sum(row[token] for row, token in zip(logp, tokens, strict=True))
    assert float(stats["nll"]) == pytest.approx(
        float(total.detach() / weight), rel=1e-4
    )
    if not smoothing:
        assert float(stats["loss_att"]) == pytest.approx(float(stats["nll"]), rel=1e-4)


@pytest.mark.parametrize("build", [alone, beside])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_every_trained_parameter_gets_a_gradient(build, ratio):
    """DDP waits for each of them, whatever the sampler draws."""
    model = (
        alone(sampling_ratio=ratio)
        if build is alone
        else beside({"sampling_ratio": ratio}, nar_distill_weight=0.5)
    ).train()
    model(**tiny_batch())[0].backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == set(gradients(model))
    assert any(name.startswith("nar.") for name in trained) is (build is beside)
    assert "nar.predictor.output.bias" not in model.state_dict()


def test_companions_change_nothing_without_the_sampler():
    model, batch = beside({"sampling_ratio": 0.0}).double().eval(), tiny_batch(4)
    batch["speech"] = batch["speech"].double()
    with torch.no_grad():
        together = model(**batch)[1]
        parts = [model(**slice_batch(batch, [n])) for n in range(4)]
    total = sum(part[2] for part in parts)
    for name in ("loss_nar", "acc_nar", "loss_att"):
        mean = sum(part[1][name] * part[2] for part in parts) / total
        torch.testing.assert_close(mean.double(), together[name].double())


def test_losses_beside_the_other_decoder():
    batch = tiny_batch()
    plain, *_ = tiny_model(**CIF_CONFORMER).eval()(**batch)
    both = beside(nar_weight=2.0, nar_distill_weight=0.5).eval()
    with torch.no_grad():
        found, stats, n_tokens = both(**batch)
        hs_pad, hlens = both.encode(batch["speech"], batch["speech_lengths"])
        ys_in, ys_out = shift_targets(
            batch["text"], batch["text_lengths"], both.sos, both.eos, -1
        )
        output = both.decoder.forward_with_states(
            hs_pad, hlens, ys_in, batch["text_lengths"] + 1
        )
        logits = both.nar.predict(output.cif.embeddings, output.cif.lengths)
    valid = ys_out != -1
    taught = torch.distributions.Categorical(logits=output.logits[valid])
    learnt = torch.distributions.Categorical(logits=logits[valid])
    divergence = torch.distributions.kl_divergence(taught, learnt).sum() / n_tokens
    torch.testing.assert_close(stats["loss_nar_distill"], divergence)
    expected = plain + 2 * stats["loss_nar"] + 0.5 * divergence
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_the_teaching_decoder_does_not_learn_from_the_divergence():
    model = beside({"sampling_ratio": 0.0}, nar_weight=0.0, nar_distill_weight=1.0)
    other, batch = tiny_model(**CIF_CONFORMER), tiny_batch()
    for one in (model, other):
        one.eval()(**batch)[0].backward()
    with_divergence, without = gradients(model), gradients(other)
    own = "decoder.output_layer.weight"
    torch.testing.assert_close(with_divergence[own], without[own])
    assert with_divergence["nar.output_layer.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"nar_conf": {"blocks": 3}}, r"nar_conf has unknown keys \['blocks'\]"),
        ({"nar_conf": {"predictor_conf": {}}}, "nar_conf.predictor_conf has no effect"),
        ({"nar_conf": {}, "nar_weight": -1}, "nar_weight is -1; it must be"),
        ({"nar_conf": {}, "nar_weight": 0.0}, "nothing would train"),
        ({"nar_conf": {"attention_heads": 3}}, "attention_heads 3 does not divide"),
    ],
)
def test_options_that_do_not_fit(conf, message):
    with pytest.raises(UserError, match=message):
        tiny_model(model_conf=conf)
    with pytest.raises(UserError, match="is cif_nar already"):
        tiny_model(**ALONE, model_conf={"nar_conf": {}})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["alone", "beside"])
def test_speech2text(tmp_path, kind):
    encoder = {
        "encoder": "cif_conformer",
        "encoder_conf": {**CIF_CONFORMER["encoder_conf"], "input_layer": "conv2d"},
    }
    changes = {**CHANGES, **encoder}
    if kind == "alone":
        changes |= ALONE
    else:
        changes["model_conf"] = {"nar_conf": NO_DROPOUT}
    files = model_files(tmp_path, **changes)
    waves = [noise(1.0), noise(0.8, seed=3), noise(1.5, seed=2)]
    options = {"one_pass": True} if kind == "beside" else {}
    greedy = Speech2Text(*files, greedy=True, **options)
    model = greedy.asr_model
    found = greedy(waves)
    for wave, [one] in zip(waves, found, strict=True):
        hs_pad, hlens = model.encode(
            torch.tensor(wave)[None], torch.tensor([len(wave)])
        )
        nar = model.decoder if kind == "alone" else model.nar
        [expected] = one_pass_search(nar, hs_pad, hlens, firing=model.decoder)
        assert one[3].yseq.tolist() == expected.yseq.tolist()
    if kind == "alone":  # ESPnet's own search, with CTC as well
        beam = Speech2Text(*files, beam_size=1, ctc_weight=0.0)
        assert [beam(wave)[0][2] for wave in waves] == [one[0][2] for one in found]
        assert Speech2Text(*files, beam_size=3, ctc_weight=0.3)(waves[0])[0][2]
        with pytest.raises(UserError, match="one_pass needs a model"):
            Speech2Text(*files, greedy=True, one_pass=True)
        return
    fallback = Speech2Text(*files, greedy=True, one_pass=True, fallback_below=1.0)
    slow = Speech2Text(*files, greedy=True)
    assert [one[0][2] for one in fallback(waves)] == [one[0][2] for one in slow(waves)]
    with pytest.raises(UserError, match="fallback_below needs one_pass"):
        Speech2Text(*files, greedy=True, fallback_below=0.5)
