"""torch.compile and torch.export take a complete step of the decoder."""

import pytest
import torch

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder

pytestmark = pytest.mark.slow

VOCAB, SIZE, HYPOTHESES, BEFORE = 11, 8, 3, 4


class Step(torch.nn.Module):
    """A step as a function of tensors: keys and values go in and come out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.decoder = CIFDecoder(VOCAB, SIZE, attention_heads=2, linear_units=16)

    def forward(self, tokens, previous, current, past):
        kept = []

        def exchange(layer, keys, values):
            new = torch.stack([keys, values])
            kept.append(torch.cat([past[layer], new], dim=2))
            return kept[-1].unbind()

        n_before = past.size(3)
        logits = self.decoder.extend(tokens, previous, current, n_before, exchange)
        return logits, torch.stack(kept)


@pytest.fixture(scope="module")
def step():
    return Step().eval()


def arguments(n_before=BEFORE):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(0, VOCAB, (HYPOTHESES, 1), generator=generator),
        torch.randn(1, 1, SIZE, generator=generator),
        torch.randn(1, SIZE, generator=generator),
        torch.randn(2, 2, HYPOTHESES, n_before, SIZE, generator=generator),
    )


def test_compiled_step(step):
    compiled = torch.compile(step, fullgraph=True, backend="eager", dynamic=True)
    with torch.no_grad():
        for n_before in (BEFORE, BEFORE + 1, BEFORE + 7):
            for found, expected in zip(
                compiled(*arguments(n_before)), step(*arguments(n_before)), strict=True
            ):
                torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_exported_step(step):
    length = torch.export.Dim("length", min=1, max=4000)
    shapes = {"tokens": {}, "previous": {}, "current": {}, "past": {3: length}}
    with torch.no_grad():
        exported = torch.export.export(
            step, arguments(), dynamic_shapes=shapes
        ).module()
        for n_before in (1, BEFORE, 40):
            for found, expected in zip(
                exported(*arguments(n_before)), step(*arguments(n_before)), strict=True
            ):
                torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_compiled_pass_over_known_tokens(step):
    """What training runs after firing."""
    compiled = torch.compile(step.decoder.decode, fullgraph=True, backend="eager")
    embeddings, tokens = torch.randn(2, 6, SIZE), torch.randint(0, VOCAB, (2, 6))
    for found, expected in zip(
        compiled(embeddings, tokens),
        step.decoder.decode(embeddings, tokens),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
