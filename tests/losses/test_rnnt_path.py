"""The best path against a loop, and the distillation loss at its nodes."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lattices import lattice

from espnet_cif_hkd.losses import best_path, path_distillation_loss, rnnt_loss
from espnet_cif_hkd.losses.rnnt_lattice import arc_scores
from espnet_cif_hkd.losses.rnnt_path import best_path_of_arcs, soft_labels
from espnet_cif_hkd.losses.rnnt_path_naive import best_path_naive

FRAMES, TOKENS = (12, 1, 5, 9), (6, 3, 0, 11)


def nodes_of(path, b):
    n = int(path.lengths[b])
    pairs = zip(path.frames[b, :n].tolist(), path.tokens[b, :n].tolist(), strict=True)
    return list(pairs), path.emits[b, :n].tolist()


def all_scores(logits, targets, n_frames, n_tokens, blank=0):
    """Log-probability of each path, by counting how many tokens each frame emits."""
    logp = logits.log_softmax(-1)
    for counts in itertools.product(range(n_tokens + 1), repeat=n_frames):
        if sum(counts) != n_tokens:
            continue
        u = score = 0
        for t, count in enumerate(counts):
            for _ in range(count):
                score += float(logp[t, u, targets[u]])
                u += 1
            score += float(logp[t, u, blank])
        yield score


def test_the_loop_finds_the_best_of_all_paths():
    for seed in range(20):
        logits, targets, _, _ = lattice((4,), (3,), seed=seed)
        score, nodes, emits = best_path_naive(logits[0], targets[0], 4, 3)
        assert score == pytest.approx(max(all_scores(logits[0], targets[0], 4, 3)))
        assert len(nodes) == 7 and sum(emits) == 3


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=4),
    st.integers(0, 9999),
    st.sampled_from([0, 2, -1]),
)
def test_equals_the_loop(shapes, seed, blank):
    """Batches, padding with NaN, more tokens than frames, any blank."""
    frames, tokens = zip(*shapes, strict=True)
    n_vocab = 5
    inputs = lattice(frames, tokens, n_vocab, seed, blank=blank % n_vocab, extra=2)
    logits, targets, *_ = inputs
    for b, (t, u) in enumerate(shapes):
        logits[b, t:] = logits[b, :, u + 1 :] = torch.nan
        targets[b, u:] = -7
    path = best_path(*inputs, blank)
    assert path.valid.sum(1).tolist() == [t + u for t, u in shapes]
    for b, (t, u) in enumerate(shapes):
        one = logits[b].nan_to_num(), targets[b], t, u, blank % n_vocab
        score, nodes, emits = best_path_naive(*one)
        assert nodes_of(path, b) == (nodes, emits)
        assert float(path.scores[b]) == pytest.approx(score, rel=1e-12)
    for name in ("frames", "tokens", "emits"):
        assert not getattr(path, name)[~path.valid].any()


def test_it_is_one_of_the_paths_of_the_loss():
    """Its probability is at most that of all paths, and equal if it is the only one."""
    logits, *others = lattice(FRAMES, TOKENS)
    total, best = -rnnt_loss(logits, *others), best_path(logits, *others).scores
    assert (best <= total + 1e-12).all()
    alone = [1, 2]  # one frame, or no token
    torch.testing.assert_close(best[alone], total[alone])
    assert (best[[0, 3]] < total[[0, 3]] - 0.01).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_gives_the_path_of_its_values(dtype):
    logits, *others = lattice(FRAMES, TOKENS, n_vocab=9, dtype=dtype)
    exact = best_path(logits.double(), *others)
    with torch.autocast("cpu", torch.bfloat16):
        found = best_path(logits, *others)
    assert torch.equal(found.tokens, exact.tokens)
    assert torch.equal(found.emits, exact.emits)
    torch.testing.assert_close(found.scores, exact.scores, rtol=1e-5, atol=1e-5)


def test_the_arcs_may_come_in_blocks_of_frames():
    logits, targets, frames, tokens = lattice(FRAMES, TOKENS)
    parts = [arc_scores(part, targets, 0) for part in logits.split(5, dim=1)]
    found = best_path_of_arcs(torch.cat(parts, dim=2), frames, tokens)
    expected = best_path(logits, targets, frames, tokens)
    for name in ("frames", "tokens", "emits", "lengths", "scores"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_no_path_is_possible():
    logits, targets, frames, tokens = lattice((3, 3), (2, 2))
    logits[0, :, :, targets[0, 1]] = -torch.inf
    path = best_path(logits, targets, frames, tokens)
    assert path.lengths.tolist() == [0, 5]
    assert path.scores[0] == -torch.inf and not path.frames[0].any()


@pytest.mark.parametrize(
    ("frames", "tokens"), [(5, 2), (0, 2), (-1, 1), (4, 3), (4, -1), (9, 9)]
)
def test_lengths_out_of_range_have_no_path(frames, tokens):
    """As on a GPU, where they are not read: the other utterance is not affected."""
    logits, targets, *lengths = lattice((4, 4), (2, 2))
    expected = best_path(logits, targets, *lengths)
    lengths[0][0], lengths[1][0] = frames, tokens
    arcs = arc_scores(logits, targets, 0)
    arcs[:, 0] = -torch.inf  # what best_path does with them there
    path = best_path_of_arcs(arcs, *lengths)
    assert path.lengths.tolist() == [0, 6] and path.scores[0] == -torch.inf
    assert not path.frames[0].any() and not path.tokens[0].any()
    assert torch.equal(path.frames[1], expected.frames[1])
    assert torch.equal(path.emits[1], expected.emits[1])


def test_of_equal_arcs_the_blank_is_taken_going_back():
    """So the tokens come as early as possible, in the loop, too."""
    inputs = lattice((3,), (2,))
    inputs = (torch.zeros_like(inputs[0]), *inputs[1:])
    _, nodes, emits = best_path_naive(inputs[0][0], inputs[1][0], 3, 2)
    assert nodes_of(best_path(*inputs), 0) == (nodes, emits)
    assert emits == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 3)}, "logits must be floating"),
        ({"targets": torch.ones(2, 3).long()}, "targets must be integers"),
        ({"logit_lengths": torch.tensor([4, 5])}, "logit_lengths must be from 1 to 4"),
        ({"target_lengths": torch.tensor([3, 1])}, "target_lengths must be from 0 to"),
        ({"targets": torch.zeros(2, 2).long()}, "ids from 0 to 5 without the blank 0"),
        ({"blank": 6}, "blank 6 is not an id of 6 tokens"),
    ],
)
def test_wrong_inputs(change, message):
    names = ("logits", "targets", "logit_lengths", "target_lengths")
    given_ = dict(zip(names, lattice((4, 4), (2, 2)), strict=True))
    with pytest.raises(ValueError, match=message):
        best_path(**{**given_, **change})


def naive_loss(student, teacher, temperature, top_k=None):
    """The sum of one node after the other, over one token after the other."""
    total = 0.0
    for p, q in zip(student, teacher, strict=True):
        logp = (p / temperature).log_softmax(-1)
        kept = sorted(range(len(q)), key=lambda c: float(q[c]))[-(top_k or len(q)) :]
        weights = [float((q[c] / temperature).exp()) for c in kept]
        for c, weight in zip(kept, weights, strict=True):
            total = total - weight / sum(weights) * logp[c]
    return total


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, 7])
def test_loss_and_gradient_equal_a_loop(temperature, top_k):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    labels = soft_labels(teacher, temperature, top_k)
    loss = path_distillation_loss(student, *labels, temperature=temperature)
    expected = naive_loss(student, teacher, temperature, top_k)
    assert loss.shape == (5,) and loss.dtype == torch.float64
    torch.testing.assert_close(loss.sum(), expected)
    ours, theirs = (torch.autograd.grad(x.sum(), student)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_student_like_its_teacher_has_no_gradient():
    logits = torch.randn(4, 6, dtype=torch.float64).requires_grad_()
    labels, _ = soft_labels(logits, 2.0)
    path_distillation_loss(logits, labels, temperature=2.0).sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(4, 6, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_float32_under_autocast(dtype):
    student, teacher = torch.randn(2, 3, 50).to(dtype)
    exact = path_distillation_loss(student.double(), *soft_labels(teacher.double()))
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = path_distillation_loss(student, *soft_labels(teacher))
    loss.sum().backward()
    assert loss.dtype == torch.float32 and student.grad.dtype == dtype
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_token_that_both_exclude():
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    student[:, 4] = teacher[:, 4] = -torch.inf
    student.requires_grad_()
    loss = path_distillation_loss(student, *soft_labels(teacher))
    loss.sum().backward()
    expected = path_distillation_loss(student[:, :4], *soft_labels(teacher[:, :4]))
    torch.testing.assert_close(loss, expected)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ("probabilities", "ids"),
    [((4, 5), None), ((3, 4), None), ((3, 2), (3, 3)), ((3, 2), (2, 2))],
)
def test_wrong_shapes(probabilities, ids):
    ids = None if ids is None else torch.zeros(ids).long()
    with pytest.raises(ValueError, match=r"probabilities must be \(N, V\)"):
        path_distillation_loss(torch.zeros(3, 5), torch.zeros(probabilities), ids)
