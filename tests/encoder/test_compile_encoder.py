"""torch.compile and torch.export take the paper's complete encoder."""

import pytest
import torch
from tiny_conformer import padded, random_utterances, tiny_conformer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder():
    return tiny_conformer(num_blocks=2, pooling_layers=[1]).eval()


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@pytest.mark.parametrize("way", ["compile", "export"])
def test_encoder_is_one_graph(encoder, way):
    speech, lengths = padded(random_utterances([60, 40, 55]))
    with torch.no_grad():
        if way == "compile":
            traced = torch.compile(encoder, fullgraph=True, backend="eager")
        else:
            traced = torch.export.export(encoder, (speech, lengths)).module()
        # other lengths, none of which fills the batch: the graph was not made for them
        for these in (lengths, torch.tensor([30, 58, 21])):
            expected, expected_lengths, _ = encoder(speech, these)
            found, found_lengths, _ = traced(speech, these)
            n_frames = expected.size(1)
            assert torch.equal(found_lengths, expected_lengths)
            assert not found[:, n_frames:].any()
            torch.testing.assert_close(
                found[:, :n_frames], expected, atol=1e-12, rtol=0
            )
