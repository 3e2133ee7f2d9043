"""Integrate-and-fire against its loop over frames, in outputs and gradients."""

import pytest
import torch

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.naive import integrate_and_fire_naive


def check_against_the_loop(hs, alpha, lengths, **kwargs):
    """Compare both for float64 inputs; ``kwargs`` are arguments of both."""
    results, grads = [], []
    for fast in (True, False):
        h = hs.clone().requires_grad_()
        a = alpha.clone().requires_grad_()
        if fast:
            out = integrate_and_fire(h, a, lengths, **kwargs)
            rows = [out.embeddings[b, :n] for b, n in enumerate(out.lengths)]
            times = [t[t >= 0].tolist() for t in out.firing_times]
        else:
            rows, times = integrate_and_fire_naive(h, a, lengths, **kwargs)
        results.append((rows, times))
        # A loss that is not linear, so that a token in the wrong place shows.
        loss = sum(
            (
                (i + 1) * (row * (row + k + 1)).sum()
                for i, r in enumerate(rows)
                for k, row in enumerate(r)
            ),
            start=(h.sum() + a.sum()) * 0,
        )
        loss.backward()
        grads.append((h.grad, a.grad))
    for ours, oracle in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-9, atol=1e-9)
    for ours, oracle in zip(results[0][1], results[1][1], strict=True):
        assert ours == pytest.approx(oracle, abs=1e-6)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-7, atol=1e-7)
