"""Label interpolation on the output of a model."""

import pytest
import torch
from espnet_parts import HYBRID
from soft_levels import TableLM, criteria, texts_of
from tiny_model import TOKENS, gradients, tiny_batch, tiny_config, tiny_model
from transducer_parts import tiny_transducer

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.rnnt_path_naive import best_path_naive
from espnet_cif_hkd.losses.soft_labels_naive import interpolated_loss_naive

SHARE = 0.3


def one_pass(ratio):
    """``decoder: cif_nar``; tokens that its sampler shows have no loss."""
    conf = {**tiny_config()["decoder_conf"], "sampling_ratio": ratio}
    return {"decoder": "cif_nar", "decoder_conf": conf}


HOSTS = {
    "cif": {},
    "cif-nar": one_pass(0.0),
    "cif-nar-sampled": one_pass(0.5),
    "cif-nar-shown": one_pass(1.0),
    "cif-unsmoothed": {"model_conf": {"lsm_weight": 0.0}},
    "hybrid": {**HYBRID, "model_conf": {"ctc_weight": 0.3}},
    "hybrid-token": {**HYBRID, "model_conf": {"loss_normalizer": "token"}},
    "hybrid-attention": {**HYBRID, "model_conf": {"ctc_weight": 0.0}},
    "hybrid-length": {
        **HYBRID,
        "model_conf": {"length_normalized_loss": True, "lsm_weight": 0.0},
    },
}


def level(share=SHARE, **options):
    conf = {"tap": "logits", "lm_type": "table", "top_k": 4, **options}
    return criteria({"output": {**conf, "interpolation": share}}, token_type="char")


def build(host, conf=()):
    changes = dict(HOSTS[host])
    model_conf = {**changes.pop("model_conf", {}), **dict(conf)}
    return tiny_model(**changes, model_conf=model_conf).double()


def step(model, batch):
    torch.manual_seed(3)
    loss, stats, weight = model.train()(**batch)
    model.zero_grad()
    loss.sum().backward()
    return loss.detach(), stats, weight, gradients(model)


def token_loss(model, batch, share):
    """The interpolated loss of all tokens; ``<eos>`` has its hard label."""
    seen = []
    place = model.decoder
    original = place.forward_with_states if hasattr(place, "forward_with_states") else 0
    if original:

        def keep(*args):
            seen.append(original(*args))
            return seen[-1]

        place.forward_with_states = keep
        torch.manual_seed(3)  # the same tokens are shown
        model(**batch)
        del place.forward_with_states
        logits, scored = seen[0].logits, seen[0].scored
    else:
        hook = place.register_forward_hook(lambda m, given, made: seen.append(made[0]))
        model(**batch)
        hook.remove()
        logits, scored = seen[0], None
    if scored is None:
        scored = torch.ones(logits.shape[:2], dtype=torch.bool)
    smoothing = model.lsm_weight if original else model.criterion_att.smoothing
    teacher, total = TableLM(TOKENS, {"top_k": 4}), 0
    for row, kept, text in zip(logits, scored, texts_of(batch), strict=True):
        labels = teacher.targets([text], torch.device("cpu")).tensors
        n, targets = len(text), torch.tensor(text)
        losses = interpolated_loss_naive(
            row[:n], targets, labels["ids"], labels["probabilities"], share, smoothing
        )
        none = torch.zeros(1, 1)
        last = interpolated_loss_naive(
            row[n : n + 1], torch.tensor([model.eos]), none.long(), none, 0, smoothing
        )
        total = total + torch.cat([losses, last])[kept[: n + 1]].sum()
    return total


@pytest.mark.parametrize("host", HOSTS)
def test_the_total_is_the_weighted_sum(host):
    """Also its gradients: as if the model's loss had the soft targets."""
    batch = tiny_batch(4, dtype=torch.float64)
    model, plain = build(host, level()), build(host)
    plain.load_state_dict(model.state_dict(), strict=False)
    loss, stats, weight, found = step(model, batch)
    alone, plain_stats, plain_weight, _ = step(plain, batch)
    assert torch.equal(weight, plain_weight)
    assert float(stats["loss_att"]) == float(plain_stats["loss_att"])

    plain.zero_grad()
    torch.manual_seed(3)
    hard, _, _ = plain.train()(**batch)
    ours, theirs = (token_loss(plain, batch, share) for share in (SHARE, 0))
    length = host == "hybrid-length"
    divisor = (batch["text_lengths"] + 1).sum() if length else weight
    share = 1 - model.ctc_weight if host.startswith("hybrid") else 1.0
    expected = hard + share * (ours - theirs) / divisor
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=1e-8)
    assert float(loss) != pytest.approx(float(alone), rel=1e-4)
    # Shown tokens have neither a hard nor a soft loss, so the loss has a lower bound.
    assert float(loss) > 0
    expected.sum().backward()
    wanted = gradients(plain)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("host", HOSTS)
def test_a_share_of_0_is_the_plain_loss(host):
    """Bit for bit, gradients and log included."""
    batch = tiny_batch(4, dtype=torch.float64)
    results = [step(build(host, conf), batch) for conf in (level(0.0), {})]
    (loss, stats, weight, found), (plain, logged, others, wanted) = results
    assert torch.equal(loss, plain) and torch.equal(weight, others)
    assert stats.keys() == logged.keys() and found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_the_log_has_the_soft_cross_entropy():
    batch = tiny_batch(4, dtype=torch.float64)
    model = build("cif-unsmoothed", level(1.0))
    _, stats, weight, _ = step(model, batch)
    n_tokens = int(batch["text_lengths"].sum())
    # With share 1 the token loss is that of <eos> and the soft one of all others.
    total = float(token_loss(model, batch, 1.0).detach())
    eos = float((token_loss(model, batch, 0.0)).detach())
    difference = float(stats["lm.loss_output"]) * int(weight)
    assert total - eos == pytest.approx(difference, rel=1e-6)
    assert 0 < float(stats["lm.soft_output"]) * n_tokens < total


def test_a_schedule_begins_with_hard_labels():
    batch = tiny_batch(4, dtype=torch.float64)
    conf = level()
    conf["criteria"]["lm"] |= {"start": 100}
    later, plain = step(build("cif", conf), batch), step(build("cif"), batch)
    assert torch.equal(later[0], plain[0])


def test_empty_texts():
    batch = tiny_batch(2, dtype=torch.float64)
    batch["text_lengths"] = torch.tensor([0, 0])
    batch["text"] = torch.full((2, 0), -1)
    loss, stats, _, _ = step(build("cif", level()), batch)
    plain = step(build("cif"), batch)[0]
    assert torch.equal(loss, plain) and float(stats["lm.loss_output"]) == 0


def lattice(model, batch):
    """The logits of a transducer, (B, T, U + 1, V), and the frames."""
    seen = []
    place = model.joint_network
    hook = place.register_forward_hook(lambda m, given, made: seen.append(made))
    model(**batch)
    hook.remove()
    return seen[0], model.encode(batch["speech"], batch["speech_lengths"])[1]


@pytest.mark.parametrize("lengths", [None, [0, 2, 1, 0]])
def test_a_transducer_learns_where_its_best_path_emits(lengths):
    """Probabilities of tokens without the blank; the transducer's loss is complete."""
    batch = tiny_batch(4)
    if lengths is not None:
        batch["text_lengths"] = torch.tensor(lengths)
    model = tiny_transducer(std=0.5, model_conf=level()).eval()
    plain = tiny_transducer(std=0.5).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    logits, hlens = lattice(plain, batch)
    teacher, total = TableLM(TOKENS, {"top_k": 4}), torch.zeros(())
    for row, frames, text in zip(logits, hlens, texts_of(batch), strict=True):
        targets = torch.tensor(text).long()
        _, nodes, emits = best_path_naive(row.detach(), targets, int(frames), len(text))
        labels = teacher.targets([text], torch.device("cpu")).tensors
        where = [node for node, emitted in zip(nodes, emits, strict=True) if emitted]
        assert [u for _, u in where] == list(range(len(text)))
        for u, (t, _) in enumerate(where):
            logp = row[t, u, 1:].log_softmax(-1)
            for token, share in zip(
                labels["ids"][u], labels["probabilities"][u], strict=True
            ):
                total = total - share * logp[int(token) - 1]
    weight = (batch["text_lengths"] + 1).sum()
    expected = plain(**batch)[0] + SHARE * total / weight
    loss, stats, _ = model(**batch)
    torch.testing.assert_close(loss, expected)
    n_tokens = int(batch["text_lengths"].sum())
    assert float(stats["lm.soft_output"]) == pytest.approx(
        float(total.detach()) / n_tokens
    )
    for made in (loss, expected):
        made.sum().backward()
    wanted, found = gradients(plain), gradients(model)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_lattice_of_a_transducer_gets_no_second_gradient():
    """It would have the size of the lattice; only nodes of the path learn."""
    model, seen = tiny_transducer(std=0.5, model_conf=level()).train(), []
    criterion = model.criteria["lm"]
    hook = criterion.register_forward_hook(lambda m, given, made: seen.append(given[0]))
    found = []
    criterion.register_forward_hook(lambda m, given, made: found.append(made))
    model(**tiny_batch(4))
    hook.remove()
    taps, loss = seen[0], found[0].losses["loss_output"]
    wanted = [taps.logits, taps.hs_pad, taps.states["output"]]
    lattice, *others = torch.autograd.grad(loss, wanted, allow_unused=True)
    assert lattice is None and all(one.any() for one in others)


def test_a_transducer_with_a_share_of_0_or_without_tokens():
    batch = tiny_batch(2)
    none, share = (tiny_transducer(model_conf=c).eval() for c in ({}, level(0.0)))
    assert torch.equal(none(**batch)[0], share(**batch)[0])
    batch["text_lengths"] = torch.tensor([0, 0])
    batch["text"] = torch.full((2, 0), -1)
    some = tiny_transducer(model_conf=level()).eval()
    assert torch.equal(none(**batch)[0], some(**batch)[0])


def test_a_model_without_decoder_has_no_logits():
    with pytest.raises(UserError, match="level output needs logits; model: hybrid"):
        build("hybrid", {**level(), "ctc_weight": 1.0})
