"""Greedy search begins with ``<sos>`` also where ``<eos>`` is another token."""

import pytest
import torch
from tiny_model import TOKENS, tiny_model

from espnet_cif_hkd.plugin.compat import BatchBeamSearch
from espnet_cif_hkd.search.greedy import greedy_search

SYMBOLS = ["<blank>", "<unk>", "<sos>", *TOKENS[2:-1], "<eos>"]


def beam_of_one(model, hs):
    search = BatchBeamSearch(
        scorers={"decoder": model.decoder},
        weights={"decoder": 1.0},
        beam_size=1,
        vocab_size=len(model.token_list),
        sos=model.sos,
        eos=model.eos,
        token_list=model.token_list,
    )
    return search(hs)[0].yseq.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("two", [False, True], ids=["one symbol", "two symbols"])
def test_greedy_equals_beam_one_for_ten_models(two):
    changes = {}
    if two:
        conf = {"sym_sos": "<sos>", "sym_eos": "<eos>"}
        changes = {"token_list": SYMBOLS, "model_conf": conf}
    texts = set()
    for seed in range(10):
        model = tiny_model(seed, **changes).eval()
        assert (model.sos == model.eos) is not two
        torch.nn.init.normal_(model.decoder.embed.weight)  # tokens matter
        hs = torch.randn(1, 16, model.encoder.output_size())
        with torch.no_grad():
            [found] = greedy_search(model.decoder, hs, torch.tensor([16]))
            expected = beam_of_one(model, hs[0])
        assert found.yseq.tolist() == expected
        assert found.yseq[0] == model.sos and found.yseq[-1] == model.eos
        texts.add(tuple(expected))
    assert len(texts) > 5
