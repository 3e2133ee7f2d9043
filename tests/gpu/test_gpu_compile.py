"""torch.compile of the firing operation, on a GPU with the kernels of Inductor."""

import pytest
import torch

from espnet_cif_hkd.cif import integrate_and_fire

pytestmark = pytest.mark.gpu


def fire(hs, alpha, lengths, targets):
    fired = integrate_and_fire(hs, alpha, lengths, targets, max_target_length=30)
    return fired.embeddings, fired.quantity


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_firing_equals_eager(device, dtype):
    torch._dynamo.reset()
    # On a CPU, Inductor calls a C++ compiler for minutes.
    backend = "inductor" if device == "cuda" else "aot_eager"
    compiled = torch.compile(fire, fullgraph=True, backend=backend)
    generator = torch.Generator().manual_seed(0)
    hs = torch.randn(4, 200, 32, generator=generator).to(device, dtype)
    alpha = torch.rand(4, 200, generator=generator).to(device)
    lengths = torch.tensor([200, 150, 90, 31], device=device)
    targets = torch.tensor([30, 12, 1, 30], device=device)
    results = []
    for way in (fire, compiled):
        h, a = hs.clone().requires_grad_(), alpha.clone().requires_grad_()
        embeddings, quantity = way(h, a, lengths, targets)
        (embeddings.float().square().sum() + quantity.sum()).backward()
        results.append((embeddings, quantity, h.grad, a.grad))
    tight = dtype == torch.float32
    for expected, found in zip(*results, strict=True):
        assert found.abs().sum() > 0
        torch.testing.assert_close(
            found, expected, rtol=1e-4 if tight else 2e-2, atol=1e-4 if tight else 2e-2
        )
