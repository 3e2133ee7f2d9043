"""Vectors one after the other give the tokens of the search over all of them."""

import pytest
import torch
from readable_decoder import ENDINGS, EOS, TOKENS, frames, readable_decoder, search
from transducer_parts import tiny_transducer

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.search.streaming import StreamingSearch
from espnet_cif_hkd.search.transducer_greedy import transducer_greedy_search
from espnet_cif_hkd.search.transducer_streaming import TransducerStream


def streamed(decoder, hs, beam_size=1, sizes=(1,)):
    """Ids and score; checks what was emitted before the end."""
    fired = decoder.fire(hs[None], torch.tensor([len(hs)]))
    vectors = fired.embeddings[0].detach()
    one, ids, begin, turn = StreamingSearch(decoder, beam_size), [], 0, 0
    while begin < len(vectors):
        size = sizes[turn % len(sizes)]
        ids += [token.id for token in one.push(vectors[begin : begin + size])]
        begin, turn = begin + size, turn + 1
    early = len(ids)
    ids += [token.id for token in one.finish()]
    return ids, one.score, early


def random_decoder(seed, eos_bias=0.0, **options):
    torch.manual_seed(seed)
    decoder = CIFDecoder(
        EOS + 1, 8, attention_heads=2, linear_units=16, **options
    ).double()
    decoder.predictor.output.bias.data.fill_(0.5)
    decoder.output_layer.weight.data[EOS] += eos_bias
    return decoder.eval()


def inside(yseq):
    ids = yseq.tolist()[1:]
    return ids[: ids.index(EOS)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_that_of_the_complete_search(ending):
    hs = frames(*ENDINGS[ending], *[("<blank>", 0.0)] * 4)
    decoder = readable_decoder()
    ids, _, early = streamed(decoder, hs)
    assert "".join(TOKENS[one] for one in ids) == "abc"
    assert early >= 2


@pytest.mark.slow
@pytest.mark.parametrize("slack", [0, 1, 3])
@pytest.mark.parametrize("eos_bias", [0.0, 0.2])
def test_greedy_equals_the_search_over_all_vectors(slack, eos_bias):
    early = eos_inside = 0
    for seed in range(6):
        decoder = random_decoder(seed, eos_bias, eos_slack=slack)
        hs = torch.randn(20, 8).double()
        [expected] = greedy_search(decoder, hs[None], torch.tensor([20]))
        for sizes in ((1,), (3, 0, 2), (99,)):
            ids, score, soon = streamed(decoder, hs, 1, sizes)
            assert ids == inside(expected.yseq)
            assert score == pytest.approx(expected.score, abs=1e-5)
        early += soon
        fired = int(decoder.fire(hs[None], torch.tensor([20])).lengths)
        eos_inside += len(ids) < fired
    assert early > 10 and (eos_inside > 0 or slack == 0)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_beam_equals_espnets(beam_size):
    for seed in range(5):
        decoder = random_decoder(seed, 0.1)
        hs = torch.randn(16, 8).double()
        # -n: ESPnet's criterion for an early end is off
        [expected, *_] = search(decoder, hs, beam_size=beam_size, maxlenratio=-16.0)
        ids, score, _ = streamed(decoder, hs, beam_size, (2, 1))
        assert ids == inside(expected.yseq)
        assert score == pytest.approx(float(expected.score), abs=1e-4)


def test_an_end_that_is_likely_waits_for_further_vectors():
    spelled = [("a", 1.0), ("b", 1.0), ("<sos/eos>", 1.0), ("c", 1.0), ("d", 1.0)]
    decoder = readable_decoder()
    fired = decoder.fire(frames(*spelled)[None], torch.tensor([5]))
    one = StreamingSearch(decoder)
    counts = [
        (len(one.push(vector[None])), one.waiting) for vector in fired.embeddings[0]
    ]
    # With two vectors more, <eos> would be too early, and another token comes.
    assert counts == [(1, 0), (1, 0), (0, 1), (0, 2), (3, 0)]


def test_nothing_fired():
    one = StreamingSearch(readable_decoder())
    assert one.push(torch.zeros(0, 8)) == one.finish() == [] and one.score == 0.0


def test_a_transducer_in_pieces():
    model = tiny_transducer(std=1.0).eval()
    model.joint_network.lin_out.bias.data[0] += 3.0
    parts = model.decoder, model.joint_network
    hs = torch.randn(30, 8)
    [expected] = transducer_greedy_search(*parts, hs[None], torch.tensor([30]))
    for sizes in ([30], [1] * 30, [0, 7, 12, 0, 11]):
        one, found, begin = TransducerStream(*parts), [], 0
        for size in sizes:
            new = one.push(hs[begin : begin + size])
            found += [(begin + frame, token) for frame, token in new]
            begin += size
        assert [token.id for _, token in found] == expected.yseq[1:].tolist()
        logp = sum(token.logp for _, token in found)
        assert logp == pytest.approx(expected.score, abs=1e-4)
        assert [frame for frame, _ in found] == sorted({frame for frame, _ in found})
    assert len(found) > 3
