"""A streaming encoder and firing in pieces on a GPU, against the masked pass."""

import contextlib
import itertools

import pytest
import torch

from espnet_cif_hkd.cif import CIFPredictor, integrate_and_fire
from espnet_cif_hkd.cif.streaming import fire_piece
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder

pytestmark = pytest.mark.gpu

FEATURES = 40


def make_encoder(**changes):
    torch.manual_seed(0)
    return CIFConformerEncoder(
        FEATURES,
        output_size=64,
        attention_heads=4,
        linear_units=128,
        num_blocks=4,
        input_channels=16,
        **({"pooling_layers": [2], "chunk_size": 4, "left_chunks": 3} | changes),
    )


def make_batch(device):
    generator = torch.Generator().manual_seed(1)
    speech = torch.randn(3, 500, FEATURES, generator=generator).to(device)
    return speech, torch.tensor([500, 333, 480], device=device)


# float32 sums in another order; bfloat16 has 8 bits, and rounds in each of 4 blocks.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.15)], ids=str
)
@pytest.mark.parametrize("causal", [False, True], ids=["inside", "causal"])
def test_pieces_equal_the_masked_pass(device, causal, dtype, tolerance):
    encoder = make_encoder(causal_convolution=causal).to(device).eval()
    predictor = CIFPredictor(64).to(device).eval()
    speech, lengths = make_batch(device)
    autocast = (
        torch.autocast(device, dtype)
        if dtype == torch.bfloat16
        else contextlib.nullcontext()
    )
    encoded, weights, frames, tokens = [], [], [], 0
    caches = [None, None, None]
    with torch.no_grad(), autocast:
        expected, hlens, _ = encoder(speech, lengths)
        expected_alpha = predictor(expected, hlens)
        edges = [0, 37, 38, 200, 201, 440, 500]
        for begin, end in itertools.pairwise(edges):
            last = end == edges[-1]
            ilens = (lengths - begin).clamp(0, end - begin)
            hs, olens, caches[0] = encoder.forward_chunk(
                speech[:, begin:end], caches[0], ilens, last
            )
            encoded.append(hs)
            hs, alpha, olens, caches[1] = predictor.forward_chunk(
                hs, olens, caches[1], last
            )
            frames.append(hs)
            weights.append(alpha)
            fired, caches[2] = fire_piece(hs, alpha, olens, caches[2], last)
            tokens = tokens + fired.lengths
    found, alpha = torch.cat(encoded, dim=1), torch.cat(weights, dim=1)
    n_frames = expected.size(1)
    assert found.device.type == device and not found[:, n_frames:].any()
    torch.testing.assert_close(
        found[:, :n_frames].float(), expected.float(), rtol=tolerance, atol=tolerance
    )
    torch.testing.assert_close(
        alpha[:, :n_frames], expected_alpha, rtol=tolerance, atol=tolerance
    )
    # The firing itself is exact: the same frames and weights give the same tokens.
    complete = integrate_and_fire(torch.cat(frames, dim=1), alpha, hlens)
    assert torch.equal(tokens, complete.lengths) and tokens.min() > 5


def test_dynamic_chunks_train(device):
    encoder = make_encoder(chunk_size=[0, 2, 6]).to(device).train()
    speech, lengths = make_batch(device)
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.autocast(device, torch.bfloat16):
            hs_pad, _, _ = encoder(speech, lengths)
        encoder.zero_grad()
        hs_pad.float().square().mean().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
