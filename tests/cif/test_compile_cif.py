"""torch.compile and torch.export of predictor and integrate-and-fire.

In training nothing depends on data, so there is one graph. In a search the number of
fired tokens does: one read-back, which ``max_target_length`` spares; export needs it.
"""

import pytest
import torch
from torch.export import Dim

from espnet_cif_hkd.cif import CIFPredictor, integrate_and_fire

HLENS = torch.tensor([20, 15])
TARGETS = torch.tensor([5, 3])


class Fire(torch.nn.Module):
    """Predictor and integrate-and-fire, as the decoder joins them."""

    def __init__(self, max_target_length: int | None) -> None:
        super().__init__()
        self.predictor = CIFPredictor(8, dropout_rate=0.0)
        self.max_target_length = max_target_length

    def forward(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        target_lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        alpha = self.predictor(hs_pad, hlens)
        out = integrate_and_fire(
            hs_pad,
            alpha,
            hlens,
            target_lengths,
            max_target_length=self.max_target_length,
        )
        return out.embeddings, out.lengths, out.quantity


@pytest.fixture
def hs_pad() -> torch.Tensor:
    return torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_training_is_one_graph(hs_pad: torch.Tensor) -> None:
    module = Fire(5)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for fire in (module, compiled):
        module.zero_grad()
        hs = hs_pad.clone().requires_grad_()
        embeddings, _, quantity = fire(hs, HLENS, TARGETS)
        (embeddings.square().sum() + quantity.sum()).backward()
        grads = [p.grad.clone() for p in module.parameters()]
        results.append((embeddings, quantity, hs.grad, *grads))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_search_breaks_once_for_the_number_of_tokens(hs_pad: torch.Tensor) -> None:
    torch._dynamo.reset()
    reasons = torch._dynamo.explain(Fire(None).eval())(hs_pad, HLENS).break_reasons
    # The caller breaks where what it calls does, so the one place may count twice.
    places = {(r.user_stack[-1].name, r.user_stack[-1].lineno) for r in reasons}
    assert len(places) == 1
    assert all("item()" in r.reason for r in reasons)


@pytest.mark.slow
def test_export_with_any_batch_and_length(hs_pad: torch.Tensor) -> None:
    module = Fire(40).eval()
    batch = Dim("batch")
    shapes = ({0: batch, 1: Dim("frames", min=3)}, {0: batch})
    program = torch.export.export(module, (hs_pad, HLENS), dynamic_shapes=shapes)
    exported = program.module()
    for n_batch, n_frames in ((2, 20), (3, 33)):
        generator = torch.Generator().manual_seed(1)
        hs = torch.randn(n_batch, n_frames, 8, generator=generator)
        hlens = torch.arange(n_frames, n_frames - n_batch, -1)
        expected = module(hs, hlens)
        assert expected[1].max() > 3
        torch.testing.assert_close(exported(hs, hlens), expected)
