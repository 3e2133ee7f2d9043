"""CIFASRModel: its loss is the paper's, its log is ESPnet's, its loading is strict."""

import numpy as np
import pytest
import torch
from paper_loss import EOS, paper_loss_sum
from tiny_model import (
    TOKENS,
    gradients,
    slice_batch,
    tiny_batch,
    tiny_config,
    tiny_model,
)

from espnet_cif_hkd.errors import UserError


@pytest.mark.parametrize("n_batch", [1, 4])
def test_gradient_has_the_papers_weights(n_batch):
    model = tiny_model().double().train()
    batch = tiny_batch(n_batch, dtype=torch.float64)
    loss, _, weight = model(**batch)
    loss.backward()
    ours = gradients(model)
    model.zero_grad()
    total, n_tokens = paper_loss_sum(model, batch)
    assert int(weight) == n_tokens
    (total / n_tokens).backward()
    oracle = gradients(model)
    assert ours.keys() == oracle.keys() and len(ours) > 20
    for key in ours:
        # ESPnet's smoothing and CTC run in float32
        torch.testing.assert_close(ours[key], oracle[key], rtol=1e-5, atol=1e-6)


def test_weight_makes_any_split_equal_to_one_batch():
    """ESPnet's trainer: (sum of loss x weight) / (sum of weight) over processes."""
    model = tiny_model().train()
    batch = tiny_batch(5)
    loss, stats, _ = model(**batch)
    loss.backward()
    complete = gradients(model)
    model.zero_grad()
    parts = [model(**slice_batch(batch, c)) for c in ([0], [1, 2, 3], [4])]
    n_tokens = sum(part[2] for part in parts)
    split = sum(part[0] * part[2] for part in parts) / n_tokens
    split.backward()
    torch.testing.assert_close(split, loss)
    for key, value in gradients(model).items():
        torch.testing.assert_close(value, complete[key], rtol=1e-4, atol=1e-6)
    for name in ("loss_att", "loss_ctc", "loss_quantity", "nll"):
        mean = sum(part[1][name] * part[2] for part in parts) / n_tokens
        torch.testing.assert_close(mean, stats[name])


def test_statistics_of_training_and_validation():
    model, batch = tiny_model(), tiny_batch()
    _, stats, weight = model.train()(**batch)
    training = {"loss", "loss_att", "nll", "loss_ctc", "loss_quantity", "acc"}
    assert training <= {k for k, v in stats.items() if v is not None}
    assert int(weight) == int((batch["text_lengths"] + 1).sum())
    with torch.no_grad():
        _, stats, _ = model.eval()(**batch)
    assert training | {"cer", "wer", "cer_ctc", "cer_free", "length_error"} <= set(
        stats
    )
    for name, value in stats.items():
        assert np.isfinite(float(value)), name


def test_free_statistics_know_a_perfect_alpha():
    """Fire the targets' own number of tokens: no length error; and fire nothing."""
    model, batch = tiny_model().eval(), tiny_batch()

    class Perfect(torch.nn.Module):
        def forward(self, hs_pad, hlens):
            valid = torch.arange(hs_pad.size(1))[None] < hlens[:, None]
            return valid * ((batch["text_lengths"] + 1) / hlens)[:, None]

    model.decoder.predictor = Perfect()
    with torch.no_grad():
        _, stats, _ = model(**batch)
        assert float(stats["length_error"]) == 0.0
        assert float(stats["loss_quantity"]) < 1e-5
        model.decoder.predictor.forward = lambda hs, hl: hs.new_zeros(hs.shape[:2])
        _, silent, _ = model(**batch)
    assert float(silent["length_error"]) == 1.0
    assert float(silent["cer_free"]) == 1.0  # everything deleted
    assert float(stats["cer_free"]) != 1.0


def test_bfloat16_autocast_trains():
    model, batch = tiny_model().train(), tiny_batch()
    loss, _, _ = model(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, _, _ = model(**batch)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, loss, rtol=0.05, atol=0.05)
    low.backward()
    assert all(torch.isfinite(g).all() for g in gradients(model).values())


def test_every_parameter_gets_a_gradient():
    """Or DDP would need find_unused_parameters."""
    model = tiny_model().train()
    model(**tiny_batch())[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
def test_learns_a_handful_of_sentences_by_heart():
    """And then says them in a free search, each as long as it should be."""
    model, batch = tiny_model(model_conf={"lsm_weight": 0.0}), tiny_batch()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    first = None
    for _ in range(250):
        loss, _, _ = model.train()(**batch)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
    model.eval()
    with torch.no_grad():
        hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
        fired = model.decoder.fire(hs_pad, hlens)
        assert torch.equal(fired.lengths, batch["text_lengths"] + 1)
        for b, length in enumerate(batch["text_lengths"].tolist()):
            hs = hs_pad[b, : hlens[b]]
            ys, state = [EOS], model.decoder.batch_init_state(hs)
            while len(ys) < 20 and (len(ys) == 1 or ys[-1] != EOS):
                logp, state = model.decoder.score(torch.tensor(ys), state, hs)
                ys.append(int(logp.argmax()))
            assert ys == [EOS, *batch["text"][b, :length].tolist(), EOS]


def test_inherited_nll_scores_known_text():
    model, batch = tiny_model().eval(), tiny_batch()
    with torch.no_grad():
        hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
        nll = model.nll(hs_pad, hlens, batch["text"], batch["text_lengths"])
        _, stats, weight = model(**batch)
    torch.testing.assert_close(nll.sum(), (stats["nll"] * weight).squeeze())


def test_a_missing_key_is_an_error_even_if_not_strict():
    model = tiny_model()
    state = model.state_dict()
    model.load_state_dict(state, strict=False)
    for key in ("decoder.predictor.conv.weight", "ctc.ctc_lo.bias"):
        with pytest.raises(UserError, match=key):
            model.load_state_dict(
                {k: v for k, v in state.items() if k != key}, strict=False
            )


def test_another_token_list_is_an_error():
    swapped = [*TOKENS[:3], TOKENS[4], TOKENS[3], *TOKENS[5:]]
    with pytest.raises(UserError, match="another token list"):
        tiny_model(token_list=swapped).load_state_dict(tiny_model().state_dict())


def test_parameters_that_do_not_fit_are_one_line():
    """A training that goes on with another size, part or criterion."""
    state = tiny_model().state_dict()
    wide = {"decoder_conf": {**tiny_config()["decoder_conf"], "linear_units": 24}}
    extra = {**state, "criteria.lm.head.weight": torch.zeros(3)}
    for model, given, named in (
        (tiny_model(**wide), state, r"size mismatch for decoder\..* and \d more"),
        (tiny_model(), extra, r"Unexpected key\(s\) .*\"criteria.lm.head.weight\""),
    ):
        with pytest.raises(UserError, match=named) as caught:
            model.load_state_dict(given)
        assert "\n" not in str(caught.value)
        assert "does not fit the model of this configuration" in str(caught.value)


def test_averaged_checkpoints_keep_the_token_list():
    """ESPnet adds entries up and divides; the digest survives."""
    model = tiny_model()
    state = model.state_dict()
    mean = {k: sum([v] * 7) / 7 for k, v in state.items()}
    model.load_state_dict(mean)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_conf": {"ctc_weight": 1.0}}, "ctc_weight 1.0"),
        ({"model_conf": {"ctc_weight": -0.1}}, "ctc_weight -0.1"),
        ({"decoder": "transformer", "decoder_conf": {}}, "decoder: cif"),
        ({"model_conf": {"criterion": "hdk"}}, "hdk"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**changes)
