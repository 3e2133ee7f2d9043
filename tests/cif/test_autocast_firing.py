"""16 bits around the predictor move no firing: the same tokens as in float32."""

import pytest
import torch
from tiny_model import CIF_CONFORMER, FEATURES, tiny_model


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True], ids=["free", "target"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_encoder_output_fires_the_same_tokens(dtype, known):
    """Utterances so long that 16-bit sums would miss tokens: 600 frames each."""
    model = tiny_model(**CIF_CONFORMER).eval()
    generator = torch.Generator().manual_seed(0)
    speech = torch.randn(3, 1200, FEATURES, generator=generator)
    lengths = torch.tensor([1200, 1100, 901])
    targets = lengths // 7 if known else None
    with torch.no_grad():
        with torch.autocast("cpu", dtype):
            hs, hlens = model.encode(speech, lengths)
            assert hs.size(1) == 600
            low = model.decoder.fire(hs, hlens, targets)
            naive = model.decoder.predictor.conv(hs.transpose(1, 2))
        assert naive.dtype == dtype  # autocast would have reached it
        exact = model.decoder.fire(hs.float(), hlens, targets)
    assert low.quantity.dtype == torch.float32
    assert torch.equal(low.lengths, exact.lengths)
    assert (low.lengths > 100).all()
    assert torch.equal(low.alpha, exact.alpha)
    assert torch.equal(low.firing_times, exact.firing_times)
    torch.testing.assert_close(
        low.embeddings.float(), exact.embeddings, rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_fires_the_targets(dtype):
    model = tiny_model(**CIF_CONFORMER).train()
    generator = torch.Generator().manual_seed(0)
    speech = torch.randn(3, 400, FEATURES, generator=generator)
    lengths = torch.tensor([400, 350, 301])
    tokens = torch.tensor([150, 20, 1])  # nearly as many as frames, and one
    with torch.autocast("cpu", dtype):
        hs, hlens = model.encode(speech, lengths)
        fired = model.decoder.fire(hs, hlens, tokens)
    assert torch.equal(fired.lengths, tokens)
    torch.testing.assert_close(fired.alpha.sum(1), tokens.double())
    for b, length in enumerate(tokens):
        times = fired.firing_times[b, :length]
        assert (times.diff() > 0).all()
        assert abs(float(times[-1] - hlens[b])) < 1e-6
