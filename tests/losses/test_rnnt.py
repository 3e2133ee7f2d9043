"""The transducer loss against a loop over the lattice, in value and gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import lattice, with_gradient

from espnet_cif_hkd.losses import rnnt_lattice, rnnt_loss
from espnet_cif_hkd.losses.rnnt_naive import rnnt_loss_naive

FRAMES, TOKENS = (7, 1, 3, 6), (4, 3, 0, 6)  # also more tokens than frames, and none


@settings(max_examples=30)
@given(
    utterances=st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=4
    ),
    n_vocab=st.integers(2, 5),
    blank=st.integers(0, 4),
    seed=st.integers(0, 2**16),
)
def test_equals_the_loop(utterances, n_vocab, blank, seed):
    blank %= n_vocab
    inputs = lattice(*zip(*utterances), n_vocab, seed, blank=blank)
    weights = torch.randn(len(utterances), generator=torch.Generator().manual_seed(1))
    ours = with_gradient(rnnt_loss, *inputs, blank=blank, weights=weights)
    oracle = with_gradient(rnnt_loss_naive, *inputs, blank=blank, weights=weights)
    for found, expected in zip(ours, oracle, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_gradcheck():
    logits, *others = lattice((3, 2), (2, 3), n_vocab=4)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rnnt_loss(x, *others), logits)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)],
)
def test_low_precision(dtype, tolerance):
    """Only the rounding of the gradient remains; the loss is float32."""
    inputs = lattice(FRAMES, TOKENS, dtype=dtype)
    exact = with_gradient(rnnt_loss_naive, inputs[0].double(), *inputs[1:])
    with torch.autocast("cpu", torch.bfloat16):
        losses, gradient = with_gradient(rnnt_loss, *inputs)
    assert losses.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(losses.double(), exact[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradient.double(), exact[1], rtol=tolerance, atol=tolerance
    )


@pytest.mark.slow
def test_a_long_utterance_in_float32():
    """Errors of float32 do not add up over 1,000 frames."""
    inputs = lattice((1000, 500), (150, 20), n_vocab=3, dtype=torch.float32)
    exact = with_gradient(rnnt_loss, inputs[0].double(), *inputs[1:])
    losses, gradient = with_gradient(rnnt_loss, *inputs)
    torch.testing.assert_close(losses.double(), exact[0], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(gradient.double(), exact[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("content", [0.0, 1e30, float("nan"), float("inf")])
def test_padding_changes_nothing(content):
    logits, targets, *lengths = lattice(FRAMES, TOKENS, extra=2)
    targets = targets.clone()
    outside = torch.ones(logits.shape[:3], dtype=torch.bool)
    for b, (n_frames, n_tokens) in enumerate(zip(FRAMES, TOKENS)):
        outside[b, :n_frames, : n_tokens + 1] = False
        targets[b, n_tokens:] = -1 if b % 2 else 10**6
    padded = logits.masked_fill(outside[..., None], content)
    losses, gradient = with_gradient(rnnt_loss, padded, targets, *lengths)
    assert not gradient[outside].any() and gradient[~outside].any()
    for b, (n_frames, n_tokens) in enumerate(zip(FRAMES, TOKENS)):
        alone = with_gradient(
            rnnt_loss,
            logits[b : b + 1, :n_frames, : n_tokens + 1],
            targets[b : b + 1, :n_tokens],
            *(one[b : b + 1] for one in lengths),
        )
        torch.testing.assert_close(losses[b], alone[0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(
            gradient[b, :n_frames, : n_tokens + 1], alone[1][0], rtol=0, atol=1e-12
        )


def test_excluded_tokens():
    """-inf has no probability and no gradient; without a path the loss is inf."""
    logits, targets, *lengths = lattice((3, 3, 3), (2, 2, 2), n_vocab=4)
    unused = targets[0, 0] % 3 + 1
    logits[0, 1, 0, unused] = -torch.inf
    logits[1, :, 1, targets[1, 1]] = -torch.inf  # the second token is impossible
    losses, gradient = with_gradient(rnnt_loss, logits, targets, *lengths)
    exact = rnnt_loss_naive(logits, targets, *lengths)
    assert torch.isfinite(losses[0]) and losses[1] == exact[1] == torch.inf
    torch.testing.assert_close(losses, exact)
    assert torch.isfinite(gradient).all() and not gradient[1].any()
    assert gradient[0, 1, 0, unused] == 0 and gradient[0].any()


def test_reductions_and_a_blank_from_the_end():
    logits, targets, *lengths = lattice(FRAMES, TOKENS, blank=5)
    losses = rnnt_loss(logits, targets, *lengths, blank=5)
    for reduction in ("sum", "mean"):
        found = rnnt_loss(logits, targets, *lengths, -1, reduction)
        torch.testing.assert_close(found, getattr(losses, reduction)())


def test_a_second_backward_pass_repeats_the_first():
    logits, *others = lattice(FRAMES, TOKENS)
    logits.requires_grad_()
    loss = rnnt_loss(logits, *others).sum()
    first, second = (
        torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
@pytest.mark.parametrize("way", ["grad", "backward"])
def test_second_derivatives_are_refused(way):
    logits, *others = lattice((3,), (2,))
    loss = rnnt_loss(logits.requires_grad_(), *others).sum()
    with pytest.raises(RuntimeError, match="rnnt_loss has no second derivative"):
        if way == "grad":
            torch.autograd.grad(loss, logits, create_graph=True)
        else:
            loss.backward(create_graph=True)


def test_blocks_change_nothing(monkeypatch):
    inputs = lattice(FRAMES, TOKENS, dtype=torch.float32)
    one_block = with_gradient(rnnt_loss, *inputs)
    monkeypatch.setitem(rnnt_lattice.BLOCK_LOGITS, "cpu", 20)  # three rows
    for found, expected in zip(with_gradient(rnnt_loss, *inputs), one_block):
        assert torch.equal(found, expected)


def test_logits_of_any_layout():
    logits, *others = lattice(FRAMES, TOKENS)
    turned = logits.transpose(1, 3).contiguous().transpose(1, 3)
    expected, found = (with_gradient(rnnt_loss, x, *others) for x in (logits, turned))
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_compiled_without_a_break():
    torch._dynamo.reset()
    compiled = torch.compile(rnnt_loss, fullgraph=True, backend="aot_eager")
    inputs = lattice(FRAMES, TOKENS)
    for found, expected in zip(
        with_gradient(compiled, *inputs), with_gradient(rnnt_loss, *inputs)
    ):
        assert torch.equal(found, expected)


def wrong(**changes):
    logits, targets, frames, tokens = lattice(FRAMES, TOKENS)
    given = {"logits": logits, "targets": targets}
    given |= {"logit_lengths": frames, "target_lengths": tokens}
    for name, change in changes.items():
        given[name] = change(given[name]) if callable(change) else change
    return given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": lambda x: x[0]}, r"logits must be floating, \(B, T, U \+ 1, V\)"),
        ({"logits": lambda x: x[:0]}, "not empty"),
        ({"logits": lambda x: x.long()}, "logits must be floating"),
        ({"targets": lambda y: y[:, 1:]}, r"targets must be integers \(4, 6\)"),
        ({"targets": lambda y: y.float()}, "targets must be integers"),
        ({"target_lengths": lambda n: n[1:]}, r"target_lengths must be integers \(4,"),
        ({"logit_lengths": lambda n: n + 1}, "lengths must be from 1 to 7: see utter"),
        ({"logit_lengths": lambda n: n - 1}, "from 1 to 7: see utterance 1"),
        ({"target_lengths": lambda n: n + 1}, "from 0 to 6: see utterance 3"),
        ({"targets": lambda y: y + 3}, "ids from 0 to 5 without the blank 0: see"),
        ({"targets": lambda y: y * 0}, "without the blank 0: see utterance 0"),
        ({"blank": 6}, "blank 6 is not an id of 6 tokens"),
        ({"reduction": "max"}, "reduction must be one of"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        rnnt_loss(**wrong(**changes))


@pytest.mark.slow
def test_a_second_opinion():
    """ESPnet's implementation in Python."""
    pytest.importorskip("numba")
    from espnet2.asr.transducer.rnnt_multi_blank.rnnt_multi_blank import RNNTLossNumba

    logits, targets, *lengths = lattice((9, 5, 7), (4, 2, 3), dtype=torch.float32)

    def other(logits, *others):
        return RNNTLossNumba(blank=0, reduction="none")(
            logits, *(one.int() for one in others)
        ).flatten()

    inputs = (logits, targets, *lengths)
    for found, expected in zip(
        with_gradient(rnnt_loss, *inputs), with_gradient(other, *inputs)
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def operator_of_torchaudio():
    try:
        import torchaudio  # noqa: F401

        return bool(torch.ops.torchaudio.rnnt_loss_forward)
    except (ImportError, OSError, AttributeError):
        return False


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_operator_of_torchaudio_on_request(blank, reduction):
    """Equal to ours, for padding beyond the longest utterance, too."""
    inputs = lattice(FRAMES, TOKENS, dtype=torch.float32, blank=blank, extra=2)
    options = {"blank": blank, "reduction": reduction}
    if not operator_of_torchaudio():
        with pytest.raises(RuntimeError, match=r"has no operator .*='torch'"):
            rnnt_loss(*inputs, **options, backend="torchaudio")
        return
    found = with_gradient(rnnt_loss, *inputs, **options, backend="torchaudio")
    expected = with_gradient(rnnt_loss, *inputs, **options)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_our_implementation_is_the_default(backend):
    inputs = lattice(FRAMES, TOKENS)
    expected = with_gradient(rnnt_loss, *inputs)
    for one, other in zip(with_gradient(rnnt_loss, *inputs, backend=backend), expected):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="backend must be one of"):
        rnnt_loss(*inputs, backend="warprnnt")
