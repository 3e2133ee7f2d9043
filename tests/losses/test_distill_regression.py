"""Regression loss by its definition."""

import pytest
import torch

from espnet_cif_hkd.losses import regression_loss


def test_regression_sums_dimensions():
    generator = torch.Generator().manual_seed(19)
    student, teacher = torch.randn(2, 2, 4, 4, generator=generator).double()
    lens = torch.tensor([2, 3])
    losses = regression_loss(student, teacher, lens)
    expected = [
        sum(float(student[b, i, c] - teacher[b, i, c]) ** 2 for c in range(4))
        for b, n in enumerate([2, 3])
        for i in range(n)
    ]
    torch.testing.assert_close(
        losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )
    mean = regression_loss(student, teacher, lens, "mean")
    torch.testing.assert_close(mean * 4, losses)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = regression_loss(student.bfloat16(), teacher.bfloat16(), lens)
    assert low.dtype == torch.float32
    with pytest.raises(ValueError, match="median"):
        regression_loss(student, teacher, lens, "median")
