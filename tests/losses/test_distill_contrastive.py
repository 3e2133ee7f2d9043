"""Contrastive loss: the paper's vectors, an oracle, properties."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.losses import contrastive as contrastive_module
from espnet_cif_hkd.losses import contrastive_loss, regression_loss
from espnet_cif_hkd.losses.contrastive import (
    draw_negatives,
    negatives_per_token,
    token_contrastive_loss,
)
from espnet_cif_hkd.losses.contrastive_naive import contrastive_loss_naive

DATA = Path(__file__).parents[1] / "data"


def test_contrastive_reference_vectors():
    ref = {k: torch.from_numpy(v) for k, v in np.load(DATA / "acd.npz").items()}
    student = ref["student"].clone().requires_grad_()
    losses, accuracy = contrastive_loss(
        student,
        ref["teacher"],
        ref["lengths"],
        float(ref["temperature"]),
        ref["negative_ids"].size(1),
        ref["negative_ids"],
    )
    losses.sum().backward()
    assert (losses - ref["loss_per_token"]).abs().max() <= 1e-10
    assert abs(float(accuracy) - float(ref["accuracy"])) <= 1e-10
    assert (student.grad - ref["grad_student"]).abs().max() <= 1e-10


def _ragged(lengths, width, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths, default=0) + 1, width)
    student = torch.randn(shape, generator=generator, dtype=dtype)
    teacher = torch.randn(shape, generator=generator, dtype=dtype)
    return student, teacher, torch.tensor(lengths, dtype=torch.long)


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    n_negatives=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_contrastive_equals_oracle(lengths, n_negatives, seed):
    student, teacher, lens = _ragged(lengths, 3, seed)
    n_tokens = sum(lengths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(max(n_tokens, 1), (n_tokens, n_negatives), generator=generator)
    fast = student.clone().requires_grad_()
    slow = student.clone().requires_grad_()
    losses, accuracy = contrastive_loss(
        fast, teacher, lens, 0.1, 7, ids, loss_dtype=torch.float64
    )
    expected, expected_accuracy = contrastive_loss_naive(
        slow, teacher, lens, 0.1, ids.tolist()
    )
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-10)
    assert math.isclose(float(accuracy), expected_accuracy, abs_tol=1e-6)
    if n_tokens:
        losses.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-10, atol=1e-9)
        assert float(losses.detach().min()) >= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_contrastive_is_float32_under_autocast(dtype):
    """The oracle in float64 on the same numbers is met to float32's accuracy."""
    student, teacher, lens = _ragged([9, 4, 7], 16, 3, dtype=torch.float32)
    student, teacher = student.to(dtype), teacher.to(dtype)
    ids = torch.randint(20, (20, 15), generator=torch.Generator().manual_seed(5))
    fast = student.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = contrastive_loss(fast, teacher, lens, 0.02, 15, ids)
    losses.sum().backward()
    slow = student.double().requires_grad_()
    expected, _ = contrastive_loss_naive(slow, teacher.double(), lens, 0.02, ids)
    expected.sum().backward()
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-4)
    tolerance = 1e-3 if dtype == torch.float32 else 0.2
    torch.testing.assert_close(fast.grad.double(), slow.grad, rtol=1e-2, atol=tolerance)


def test_contrastive_gradcheck():
    student, teacher, lens = _ragged([3, 2], 4, 1)
    ids = torch.tensor([[1, 2], [0, 1], [4, 4], [3, 0], [4, 2]])

    def loss(x):
        return contrastive_loss(
            x, teacher, lens, 0.5, 2, ids, loss_dtype=torch.float64
        )[0]

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


def test_negatives_are_a_uniform_subset():
    """Every other token is drawn K / N of the time, in a row exactly K or K - 1."""
    n_tokens, count, rounds = 10, 7, 4000
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(n_tokens, n_tokens)
    for _ in range(rounds):
        keep = draw_negatives(n_tokens, count, generator=generator)
        assert not keep.diagonal().any()
        assert set(keep.sum(1).tolist()) <= {count, count - 1}
        total += keep
    share = total[~torch.eye(n_tokens, dtype=torch.bool)] / rounds
    # Five standard deviations of a share of 0.7 in 4,000 draws.
    assert (share - count / n_tokens).abs().max() < 5 * (0.7 * 0.3 / rounds) ** 0.5


def test_few_negatives_are_drawn_as_well():
    keep = draw_negatives(50, 3, generator=torch.Generator().manual_seed(0))
    assert set(keep.sum(1).tolist()) <= {2, 3}


@pytest.mark.parametrize(
    ("n_tokens", "asked", "count"),
    [(0, 700, 0), (1, 700, 0), (5, 700, 4), (700, 700, 560), (701, 700, 700)],
)
def test_a_small_batch_draws_four_fifths(n_tokens, asked, count):
    assert (
        negatives_per_token(n_tokens, asked)
        == count
        == min(asked, math.floor(0.8 * n_tokens) if n_tokens <= asked else asked)
    )


@pytest.mark.parametrize("lengths", [[0], [0, 0], [1], [1, 0], [2], [1, 1]])
@pytest.mark.parametrize("num_negatives", [700, 1, None])
def test_few_tokens_are_finite(lengths, num_negatives):
    student, teacher, lens = _ragged(lengths, 4, 0, dtype=torch.float32)
    student.requires_grad_()
    losses, accuracy = contrastive_loss(student, teacher, lens, 0.02, num_negatives)
    losses.sum().backward()
    assert losses.shape == (sum(lengths),)
    assert losses.isfinite().all() and student.grad.isfinite().all()
    assert 0 <= float(accuracy) <= 1
    if lengths == [1]:
        assert losses.item() == 0 and float(accuracy) == 1


def test_all_in_batch_takes_every_other_token():
    student, teacher, lens = _ragged([3, 4], 5, 2)
    every = [list(range(7))] * 7
    losses, _ = contrastive_loss(
        student, teacher, lens, 0.1, None, loss_dtype=torch.float64
    )
    expected, _ = contrastive_loss_naive(student, teacher, lens, 0.1, every)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)


def test_candidates_of_others_are_negatives_too():
    """Rows around the own ones: as if their tokens were in the batch."""
    student, teacher, lens = _ragged([9], 4, 2)
    student, teacher = student[0, :9], teacher[0, :9]
    own = slice(3, 7)
    for count in (None, 4):
        generator = torch.Generator().manual_seed(1)
        keep = draw_negatives(4, count, n_candidates=9, first=3, generator=generator)
        assert not keep.diagonal(3).any()
        wanted = {8} if count is None else {4, 3}
        assert set(keep.sum(dim=1).tolist()) <= wanted
        ids = [row.nonzero().flatten().tolist() for row in keep]
        losses, _ = token_contrastive_loss(
            student[own],
            teacher,
            0.1,
            count,
            generator=torch.Generator().manual_seed(1),
            first=3,
        )
        expected, _ = contrastive_loss_naive(
            student[None], teacher[None], lens, 0.1, [[]] * 3 + ids + [[]] * 2
        )
        torch.testing.assert_close(losses, expected[own].float())


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("block", [1, 27, 40, 1 << 20])
def test_blocks_of_rows_change_nothing(monkeypatch, block, given):
    """Losses, accuracy and each row's own factor of the gradient, as the oracle's."""
    monkeypatch.setattr(contrastive_module, "_BLOCK_COSINES", block)
    student, teacher, _ = _ragged([13], 4, 3)
    student, teacher = student[0, 2:8].clone().requires_grad_(), teacher[0, :13]
    factors = torch.arange(6, dtype=torch.float64) - 2
    generator = torch.Generator().manual_seed(1)
    n_rows = max(1, block // 13)
    keep = [
        draw_negatives(
            min(n_rows, 6 - n), 5, n_candidates=13, first=2 + n, generator=generator
        )
        for n in range(0, 6, n_rows)
    ]
    keep = torch.cat(keep)
    ids = [row.nonzero().flatten().tolist() for row in keep]
    padded = torch.tensor([[*row, n + 2][:5] for n, row in enumerate(ids)])
    losses, accuracy = token_contrastive_loss(
        student,
        teacher,
        0.1,
        5,
        padded if given else None,
        generator=torch.Generator().manual_seed(1),
        loss_dtype=torch.float64,
        first=2,
    )
    (losses * factors).sum().backward()
    slow = torch.zeros(13, 4, dtype=torch.float64)
    slow[2:8] = student.detach()
    slow.requires_grad_()
    lens = torch.tensor([13])
    ids = [[]] * 2 + ids + [[]] * 5
    expected, share = contrastive_loss_naive(slow[None], teacher[None], lens, 0.1, ids)
    (expected[2:8] * factors).sum().backward()
    torch.testing.assert_close(losses, expected[2:8], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(student.grad, slow.grad[2:8], rtol=1e-10, atol=1e-10)
    # The seven rows without negatives are right for the oracle.
    assert math.isclose(float(accuracy) * 6 + 7, share * 13, abs_tol=1e-5)


def test_without_gradients_none_is_computed(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a gradient was computed")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    student, teacher, lens = _ragged([3], 4, 0)
    assert not contrastive_loss(student, teacher, lens, 0.1, 2)[0].requires_grad
    student.requires_grad_()
    with torch.no_grad():
        contrastive_loss(student, teacher, lens, 0.1, 2)
    with pytest.raises(AssertionError, match="a gradient"):
        contrastive_loss(student, teacher, lens, 0.1, 2)


@pytest.mark.parametrize("first", [-1, 2])
def test_too_few_candidates_are_refused(first):
    with pytest.raises(ValueError, match=f"too few for 3 tokens from row {first}"):
        token_contrastive_loss(torch.ones(3, 2), torch.ones(4, 2), 1, 1, first=first)


def test_an_id_given_twice_counts_twice():
    student, teacher, lens = _ragged([3], 4, 7)
    once = torch.tensor([[1, 0], [2, 1], [0, 2]])
    twice = torch.tensor([[1, 1], [2, 2], [0, 0]])
    a, _ = contrastive_loss(student, teacher, lens, 1.0, 2, once)
    b, _ = contrastive_loss(student, teacher, lens, 1.0, 2, twice)
    # exp(loss) = 1 + n * ratio: the own index adds nothing, the double one twice.
    torch.testing.assert_close(b.exp() - 1, 2 * (a.exp() - 1), rtol=1e-5, atol=1e-6)


def test_equal_teacher_vectors_count_as_near():
    """The letters of one word share its vector; none of them is to be called wrong."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(20, 24, generator=generator)
    teacher = words.repeat_interleave(5, dim=0)[None]
    losses, accuracy = contrastive_loss(
        teacher * 3, teacher, torch.tensor([100]), 0.02, None
    )
    assert float(accuracy) == 1
    # Four equal negatives leave the positive a fifth of the probability.
    torch.testing.assert_close(losses, torch.full((100,), math.log(5)))


@pytest.mark.parametrize("which", ["contrastive", "regression"])
def test_padding_changes_nothing(which):
    lengths, width = [4, 1, 3], 6
    student, teacher, lens = _ragged(lengths, width, 11)
    ids = torch.randint(8, (8, 5), generator=torch.Generator().manual_seed(0))

    def run(x, t):
        x = x.clone().requires_grad_()
        if which == "contrastive":
            losses = contrastive_loss(x, t, lens, 0.1, 5, ids)[0]
        else:
            losses = regression_loss(x, t, lens)
        losses.sum().backward()
        return losses.detach(), x.grad

    losses, grad = run(student, teacher)
    longer = torch.full((3, 9, width), float("nan"), dtype=torch.float64)
    poisoned, poisoned_teacher = longer.clone(), longer.clone()
    for b, n in enumerate(lengths):
        poisoned[b, :n] = student[b, :n]
        poisoned_teacher[b, :n] = teacher[b, :n]
    losses_p, grad_p = run(poisoned, poisoned_teacher)
    assert torch.equal(losses, losses_p)
    for b, n in enumerate(lengths):
        assert torch.equal(grad[b, :n], grad_p[b, :n])
        assert not grad_p[b, n:].any()


def test_batch_of_one_equals_batch_of_many():
    lengths = [4, 2, 5]
    student, teacher, lens = _ragged(lengths, 6, 13)
    parts, starts = [], [0, 4, 6]
    for b, n in enumerate(lengths):
        ids = torch.randint(n, (n, 3), generator=torch.Generator().manual_seed(b))
        parts.append(ids)
    together = torch.cat([p + s for p, s in zip(parts, starts)])
    many, _ = contrastive_loss(
        student, teacher, lens, 0.02, 3, together, loss_dtype=torch.float64
    )
    for b, (n, start) in enumerate(zip(lengths, starts)):
        one, _ = contrastive_loss(
            student[b : b + 1],
            teacher[b : b + 1],
            lens[b : b + 1],
            0.02,
            3,
            parts[b],
            loss_dtype=torch.float64,
        )
        torch.testing.assert_close(one, many[start : start + n], rtol=1e-9, atol=1e-9)


def test_a_random_start_costs_about_log_of_the_negatives():
    """ln 701 at random initialisation, here at a mild temperature."""
    student, teacher, lens = _ragged([300, 300, 300], 64, 17, dtype=torch.float32)
    losses, accuracy = contrastive_loss(student, teacher, lens, 1.0, 700)
    assert abs(float(losses.mean()) - math.log(701)) < 0.05
    assert float(accuracy) < 0.05


def test_no_gradient_reaches_the_teacher():
    student, teacher, lens = _ragged([3], 4, 0)
    student.requires_grad_()
    teacher.requires_grad_()
    loss = contrastive_loss(student, teacher, lens, 0.1, 2)[0].sum()
    (loss + regression_loss(student, teacher, lens).sum()).backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"num_negatives": 0}, "num_negatives"),
        ({"negative_ids": torch.zeros(2, 3, dtype=torch.long)}, "negative_ids"),
        ({"negative_ids": torch.full((3, 2), 3)}, "negative_ids"),
        ({"lengths": torch.tensor([3, 1])}, "lengths"),
        ({"teacher": torch.zeros(1, 4, 9)}, "student and teacher"),
    ],
)
def test_bad_arguments_are_named(change, match):
    student, teacher, lens = _ragged([3], 4, 0)
    arguments = {
        "student": student,
        "teacher": teacher,
        "lengths": lens,
        "temperature": 0.1,
        "num_negatives": 2,
    }
    with pytest.raises(ValueError, match=match):
        contrastive_loss(**{**arguments, **change})
