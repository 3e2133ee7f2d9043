"""Padding after an utterance does not reach the gradient of alpha through the tail.

The tail's token is divided by its weight. While the division came after the padding
had been masked, its gradient multiplied 0 by the NaN of a padded frame.
"""

import torch

from espnet_cif_hkd.cif import integrate_and_fire


def test_gradient_of_a_tail_ignores_padding():
    hs = torch.full((1, 3, 2), float("nan"))
    hs[0, 0] = 1.0
    hs.requires_grad_()
    alpha = torch.tensor([[0.7, 0.0, 0.0]], requires_grad=True)
    out = integrate_and_fire(hs, alpha, torch.tensor([1]), tail_threshold=0.5)
    assert out.lengths.tolist() == [1]
    out.embeddings.square().sum().backward()
    assert torch.isfinite(alpha.grad).all()
    assert torch.isfinite(hs.grad[0, 0]).all() and (hs.grad[0, 1:] == 0).all()
