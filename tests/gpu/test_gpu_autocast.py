"""The model under autocast on a GPU: 16 bits around the predictor move no firing."""

import pytest
import torch
from tiny_model import CIF_CONFORMER, FEATURES, tiny_model

pytestmark = pytest.mark.gpu
LENGTHS = torch.tensor([1200, 1100, 901])


@pytest.fixture
def model(device):
    return tiny_model(**CIF_CONFORMER).eval().to(device)


@pytest.mark.parametrize("known", [False, True], ids=["free", "target"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_encoder_output_fires_the_same_tokens(model, device, dtype, known):
    generator = torch.Generator().manual_seed(0)
    speech = torch.randn(3, 1200, FEATURES, generator=generator).to(device)
    targets = (LENGTHS // 7).to(device) if known else None
    with torch.no_grad():
        with torch.autocast(device, dtype):
            hs, hlens = model.encode(speech, LENGTHS.to(device))
            low = model.decoder.fire(hs, hlens, targets)
            naive = model.decoder.predictor.conv(hs.transpose(1, 2))
        assert naive.dtype == dtype  # autocast would have reached it
        exact = model.decoder.fire(hs.float(), hlens, targets)
    assert low.quantity.dtype == torch.float32
    assert torch.equal(low.lengths, exact.lengths)
    assert (low.lengths > 100).all()
    torch.testing.assert_close(low.alpha, exact.alpha, rtol=0, atol=1e-6)
    torch.testing.assert_close(low.firing_times, exact.firing_times, rtol=0, atol=1e-3)
    torch.testing.assert_close(
        low.embeddings.float(), exact.embeddings, rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_fires_the_targets(model, device, dtype):
    generator = torch.Generator().manual_seed(0)
    speech = torch.randn(3, 1200, FEATURES, generator=generator).to(device)
    tokens = torch.tensor([450, 20, 1], device=device)
    with torch.autocast(device, dtype):
        hs, hlens = model.encode(speech, LENGTHS.to(device))
        fired = model.decoder.fire(hs, hlens, tokens)
    assert torch.equal(fired.lengths, tokens)
    torch.testing.assert_close(fired.alpha.sum(1), tokens.double())
    for b, length in enumerate(tokens.tolist()):
        times = fired.firing_times[b, :length]
        assert (times.diff() > 0).all()
        assert abs(float(times[-1] - hlens[b])) < 1e-6
