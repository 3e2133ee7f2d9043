"""ESPnet's streaming searches refuse the decoder instead of dropping blocks."""

import importlib

import pytest
from espnet2.bin.asr_inference import Speech2Text
from espnet2.bin.asr_inference_streaming import Speech2TextStreaming
from readable_decoder import EOS, TOKENS, frames, readable_decoder, search, spell
from tiny_speech import CHANGES, model_files, noise

from espnet_cif_hkd import UserError
from espnet_cif_hkd.plugin.compat import ESPNET_RELEASE, BatchBeamSearch

CONF = {"output_size": 8, "attention_heads": 2, "linear_units": 16, "num_blocks": 1}
STREAMED = {
    **CHANGES,
    "encoder": "contextual_block_conformer",
    "encoder_conf": {**CONF, "block_size": 8, "hop_size": 4, "look_ahead": 4},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return model_files(tmp_path_factory.mktemp("exp"), **STREAMED)


def test_espnets_streaming_command(files):
    recogniser = Speech2TextStreaming(*files, beam_size=2)
    with pytest.raises(UserError, match="decoder: cif cannot decode block by block"):
        recogniser(noise(3.0))


@pytest.mark.slow
def test_espnets_simulated_streaming(files):
    recogniser = Speech2Text(*files, beam_size=2, streaming=True)
    with pytest.raises(UserError, match="decoder: cif cannot decode block by block"):
        recogniser(noise(3.0))
    assert Speech2Text(*files, beam_size=2)(noise(3.0))[0][0] is not None


@pytest.mark.parametrize("block_size", [0, 4])
def test_the_search_itself(block_size):
    if block_size == 0 and ESPNET_RELEASE < "202611":
        pytest.skip("ESPnet 202511 itself fails with block_size 0")
    module = importlib.import_module(f"{BatchBeamSearch.__module__}_online")
    hs = frames(("a", 1.0), ("b", 1.0), ("c", 1.0), *[("<blank>", 0.0)] * 9)
    decoder = readable_decoder()
    assert spell(search(decoder, hs)[0]) == "abc"
    online = module.BatchBeamSearchOnline(
        scorers={"decoder": decoder},
        weights={"decoder": 1.0},
        beam_size=2,
        vocab_size=len(TOKENS),
        sos=EOS,
        eos=EOS,
        token_list=TOKENS,
        block_size=block_size,
        hop_size=2,
        look_ahead=1,
    )
    online.set_hyp_primer([EOS])
    with pytest.raises(UserError, match="decoder: cif cannot decode block by block"):
        online(hs)
