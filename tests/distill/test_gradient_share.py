"""A criterion's gradient at its taps is bounded: explicit backward passes as oracle."""

import pytest
import torch
from recorder import MeanFrame
from tiny_model import CIF_CONFORMER, gradients, tiny_batch, tiny_model

from espnet_cif_hkd.distill import AbsDistillCriterion, DistillOutput, criterion_choices
from espnet_cif_hkd.distill.gradient_share import GradientShares
from espnet_cif_hkd.distill.taps import Taps
from espnet_cif_hkd.errors import UserError

assert MeanFrame  # registers mean_frame

NO_DROPOUT = {
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
}
ENCODER = {
    **CIF_CONFORMER,
    "encoder_conf": {**CIF_CONFORMER["encoder_conf"], **NO_DROPOUT},
}


@criterion_choices.register("square_tap")
class SquareTap(AbsDistillCriterion):
    """The sum of squares of a tap, plus a shift that makes the gradients differ."""

    def __init__(self, student, tap="fired", weight=1.0, shift=0.0):
        super().__init__()
        self.wants, self.tap = frozenset({tap}), tap
        self.weight, self.shift = weight, shift
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, taps):
        value = tap_of(taps, self.tap)
        loss = ((value + self.shift) * self.gain).square().sum()
        return DistillOutput({"loss": loss}, {"loss": self.weight})


def tap_of(taps, name):
    kind, _, part = name.partition(":")
    if kind == "fired":
        return taps.fired.embeddings
    if kind == "states":
        return taps.states[part]
    if kind == "layer":
        return taps.layers[int(part)]
    return getattr(taps, kind)


TAPS = ["fired", "hs_pad", "states:output", "states:transformer", "logits", "layer:1"]


def kept_taps(model, keep):
    """Let the model keep the taps of its next step in ``keep``."""
    make = model.make_taps

    def made(*args, **given):
        keep.append(make(*args, **given))
        return keep[-1]

    model.make_taps = made


def oracle(confs, batch, dtype):
    """Gradients of all parameters, from one backward pass for each loss and tap.

    Each criterion of ``confs`` reads one tap, at which nothing else has a bound, and
    whose other gradients come from the model alone.
    """
    free = {
        name: {key: value for key, value in conf.items() if key != "max_share"}
        for name, conf in confs.items()
    }
    model = tiny_model(model_conf={"criteria": free}, **ENCODER).to(dtype)
    keep = []
    kept_taps(model, keep)
    total, _, n_tokens = model(**batch)
    (taps,) = keep
    parameters = dict(model.named_parameters())
    losses = {
        name: model.criteria[name](taps).losses["loss"] / n_tokens for name in confs
    }
    own = total.sum() - sum(losses[n] * confs[n]["weight"] for n in confs)
    found = {name: torch.zeros_like(value) for name, value in parameters.items()}

    def add(loss, inputs_grad=None):
        grads = torch.autograd.grad(
            loss, parameters.values(), inputs_grad, retain_graph=True, allow_unused=True
        )
        for name, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                found[name] += grad

    def at(loss, tap):
        return torch.autograd.grad(loss, tap, retain_graph=True)[0]

    add(own)
    shares = {}
    for name, conf in confs.items():
        tap, bound = tap_of(taps, conf["tap"]), conf["max_share"]
        theirs, others = conf["weight"] * at(losses[name], tap), at(own, tap)
        shares[name] = float(theirs.norm() / others.norm())
        scale = min(1.0, bound / shares[name])
        add(tap, theirs * scale)
        gain = f"criteria.{name}.gain"
        found[gain] += conf["weight"] * at(losses[name], parameters[gain])
    return found, shares


def stepped(confs, batch, dtype, scale=1.0):
    model = tiny_model(model_conf={"criteria": confs}, **ENCODER).to(dtype)
    loss, _, _ = model.train()(**batch)
    (loss.sum() * scale).backward()
    _, stats, _ = model(**batch)
    return {k: g / scale for k, g in gradients(model).items()}, stats


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0.05, 1e9], ids=["bounded", "below"])
@pytest.mark.parametrize("tap", TAPS)
def test_gradients_equal_those_of_two_backward_passes(tap, bound):
    conf = {"type": "square_tap", "tap": tap, "weight": 3.0, "max_share": bound}
    batch = tiny_batch(dtype=torch.float64)
    expected, shares = oracle({"one": conf}, batch, torch.float64)
    found, stats = stepped({"one": conf}, batch, torch.float64)
    assert shares["one"] > 0.05, "the bound has no effect in this test"
    same(found, expected)
    logged = f"one.share_{tap.replace(':', '_')}"
    assert float(stats[logged]) == pytest.approx(shares["one"], rel=1e-6)


def test_several_criteria_on_one_tap_have_bounds_of_their_own():
    base = {"type": "square_tap", "tap": "fired"}
    confs = {
        "first": {**base, "weight": 3.0, "max_share": 0.1},
        "second": {**base, "weight": 2.0, "max_share": 0.02, "shift": 1.0},
        "third": {**base, "weight": 1e-3, "max_share": 5.0, "shift": -1.0},
    }
    batch = tiny_batch(dtype=torch.float64)
    expected, _ = oracle(confs, batch, torch.float64)
    found, stats = stepped(confs, batch, torch.float64)
    same(found, expected)
    assert {f"{name}.share_fired" for name in confs} <= set(stats)


def test_a_factor_of_all_gradients_changes_nothing():
    """As that of a gradient scaler."""
    conf = {"type": "square_tap", "tap": "fired", "weight": 3.0, "max_share": 0.1}
    batch = tiny_batch(dtype=torch.float64)
    expected, _ = stepped({"one": conf}, batch, torch.float64)
    found, _ = stepped({"one": conf}, batch, torch.float64, 2.0**16)
    same(found, expected)


def test_without_a_bound_nothing_is_copied():
    conf = {"type": "square_tap", "tap": "fired", "weight": 3.0}
    batch = tiny_batch()
    free, stats = stepped({"one": conf}, batch, torch.float32)
    wide, _ = stepped({"one": {**conf, "max_share": 1e9}}, batch, torch.float32)
    assert "one.share_fired" not in stats
    for name, value in free.items():
        torch.testing.assert_close(wide[name], value)


def limited_half(scale, gradient):
    """float16 gradients of a tap: ``gradient`` of the criterion, 1 of the rest."""
    leaf = torch.zeros(4, 8, dtype=torch.float32, requires_grad=True)
    tap = leaf.half()
    measured = {}
    taps = Taps(tap, *[torch.ones(4)] * 3)
    read = GradientShares(measured).limited(taps, ["hs_pad"], "", 0.5).hs_pad
    loss = (tap.float().sum() + (read.float() * gradient).sum()) * scale
    loss.backward()
    return leaf.grad, measured["share_hs_pad"]


def test_float16_gradients_are_measured_in_float32():
    """The sum of their squares overflows float16."""
    grad, share = limited_half(2.0**11, 8.0)
    torch.testing.assert_close(grad / 2.0**11, torch.full((4, 8), 1.5))
    assert share.dtype == torch.float32 and float(share) == pytest.approx(8.0)


def test_an_overflow_reaches_the_gradient_scaler():
    """It must skip the step; a bound must not hide it."""
    grad, _ = limited_half(2.0**11, 1e6)
    assert not grad.isfinite().any()


def test_a_tap_that_nothing_else_reads_is_an_error():
    tap = torch.zeros(4, 8, requires_grad=True) * 1.0
    taps = Taps(tap, *[torch.ones(4)] * 3)
    read = GradientShares({}).limited(taps, ["hs_pad"], "", 0.5).hs_pad
    with pytest.raises(UserError, match="no other loss depends on hs_pad"):
        read.sum().backward()


def test_validation_and_frozen_encoders_have_no_gradient_to_bound():
    conf = {"type": "square_tap", "tap": "hs_pad", "weight": 3.0, "max_share": 0.1}
    model = tiny_model(model_conf={"criteria": {"one": conf}})
    with torch.no_grad():
        _, stats, _ = model.eval()(**tiny_batch())
    assert "one.loss" in stats and "one.share_hs_pad" not in stats
    model.encoder.requires_grad_(False)
    model.train()(**tiny_batch())[0].sum().backward()
    assert model.criteria["one"].gain.grad is not None
