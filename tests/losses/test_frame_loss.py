"""Frame losses against a loop over frames and dimensions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_cif_hkd.losses import frame_loss
from espnet_cif_hkd.losses.frames import FRAME_LOSSES, frame_losses


def naive(student, teacher, mask, kind):
    """The sum of the losses of valid frames, one number at a time."""
    total = student.new_zeros(())
    for b, row in enumerate(mask.tolist()):
        for t, valid in enumerate(row):
            if not valid:
                continue
            pairs = list(zip(student[b, t], teacher[b, t], strict=True))
            l1 = sum((s - e).abs() for s, e in pairs) / len(pairs)
            l2 = sum((s - e) ** 2 for s, e in pairs) / len(pairs)
            dot = sum(s * e for s, e in pairs)
            lengths = [sum(v**2 for v in vector) for vector in zip(*pairs, strict=True)]
            angle = 1 - dot / (lengths[0] * lengths[1]).sqrt()
            losses = {"l1": l1, "l2": l2, "cosine": angle, "l1_cosine": l1 + angle}
            total = total + losses[kind]
    return total


def frames(seed, shape=(3, 5, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)
    )
    mask = torch.rand(shape[:2], generator=generator) < 0.6
    return student, teacher, mask


@settings(max_examples=30)
@given(
    kind=st.sampled_from(FRAME_LOSSES),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
    seed=st.integers(0, 2**16),
    filling=st.sampled_from([0.0, math.nan, math.inf, 1e30]),
)
def test_value_and_gradient_equal_a_loop_whatever_the_padding(
    kind, shape, seed, filling
):
    student, teacher, mask = frames(seed, shape)
    ours = student.masked_fill(~mask[..., None], filling).requires_grad_()
    targets = teacher.masked_fill(~mask[..., None], filling)
    loss = frame_loss(ours, targets, mask, kind)
    loss.backward()
    plain = student.clone().requires_grad_()
    expected = naive(plain, teacher, mask, kind)
    torch.testing.assert_close(loss, expected)
    if not mask.any():
        assert not ours.grad.any()
        return
    expected.backward()
    torch.testing.assert_close(ours.grad, plain.grad)


@pytest.mark.parametrize("kind", FRAME_LOSSES)
def test_float32_also_under_autocast(kind):
    student, teacher, mask = frames(1, dtype=torch.float32)
    half = student.bfloat16(), teacher.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = frame_loss(*half, mask, kind)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, frame_loss(*(x.float() for x in half), mask, kind))


@pytest.mark.parametrize("kind", FRAME_LOSSES)
def test_no_frames_give_zero_and_a_gradient(kind):
    """A process without targets takes part in the step of all processes."""
    head = torch.nn.Linear(3, 2)
    frame_losses(head(torch.zeros(0, 3)), torch.zeros(0, 2), kind).sum().backward()
    assert not head.weight.grad.any() and not head.bias.grad.any()


def test_the_teacher_gets_no_gradient():
    student, teacher, mask = frames(2)
    teacher.requires_grad_()
    frame_loss(student.requires_grad_(), teacher, mask, "l1_cosine").backward()
    assert teacher.grad is None


def test_wrong_shapes_and_losses_are_refused():
    student, teacher, mask = frames(3)
    with pytest.raises(ValueError, match=r"mask \(B, T\), but are .*\(3, 5\)"):
        frame_loss(student, teacher[..., :2], mask, "l1")
    with pytest.raises(ValueError, match=r"one of .*l1_cosine.* but is 'l3'"):
        frame_loss(student, teacher, mask, "l3")
