"""Parity with the original implementation: outputs and gradients to 1e-10."""

from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_cif_hkd.cif import integrate_and_fire

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("path", sorted(DATA.glob("cif_*.npz")), ids=lambda p: p.stem)
def test_reference_vectors(path):
    ref = np.load(path)
    hs = torch.from_numpy(ref["hidden"]).requires_grad_()
    # The original took its weights from channel 0, so that its gradient there holds
    # the way through alpha, too: d alpha / d h = alpha (1 - alpha).
    logit = torch.from_numpy(np.log(ref["alpha"] / (1 - ref["alpha"])))
    channel0 = torch.zeros_like(logit).requires_grad_()
    alpha = torch.sigmoid(logit + channel0)
    lengths = torch.from_numpy(ref["lengths"])
    kept = torch.from_numpy(ref["output_lengths"])
    target = torch.from_numpy(ref["target_lengths"]) if ref["scaling"] else None
    tail = float(ref["tail_threshold"]) if ref["tail_handling"] else None

    out = integrate_and_fire(hs, alpha, lengths, target, tail)

    expected_lengths = target if target is not None else kept
    assert out.lengths.tolist() == expected_lengths.tolist()
    n_tokens = ref["output"].shape[1]
    # Tokens which the original lost to rounding are ours alone: compare the others.
    both = torch.arange(n_tokens)[None, :, None] < kept[:, None, None]
    assert both.sum() >= kept.sum() > 0
    embeddings = out.embeddings[:, :n_tokens]
    torch.testing.assert_close(
        torch.where(both, embeddings, 0.0),
        torch.from_numpy(ref["output"]) * both,
        rtol=0,
        atol=1e-10,
    )
    torch.testing.assert_close(
        out.quantity, torch.from_numpy(ref["quantity"]), rtol=0, atol=1e-10
    )
    grad = torch.from_numpy(ref["grad_output"]) * both
    (embeddings * grad).sum().backward()
    ours = hs.grad.clone()
    ours[..., 0] += channel0.grad
    torch.testing.assert_close(
        ours, torch.from_numpy(ref["grad_hidden"]), rtol=0, atol=1e-10
    )
