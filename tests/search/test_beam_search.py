"""ESPnet's own beam search over fired tokens, and how an utterance ends."""

import inspect

import pytest
import torch
from espnet2.lm.transformer_lm import TransformerLM
from readable_decoder import (
    ENDINGS,
    EOS,
    TOKENS,
    frames,
    readable_decoder,
    search,
    spell,
)

from espnet_cif_hkd.decoder.ending import mask_by_fired_length
from espnet_cif_hkd.plugin.compat import BatchBeamSearch

WAYS = {
    "greedy": {"beam_size": 1},
    "beam": {"beam_size": 4},
    "beam, one at a time": {"beam_size": 4, "batched": False},
    "beam with CTC": {"beam_size": 4, "ctc_weight": 0.3},
    "beam with CTC, one at a time": {
        "beam_size": 4,
        "ctc_weight": 0.3,
        "batched": False,
    },
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("way", WAYS)
def test_every_ending_gives_the_complete_sentence(way, ending):
    # Trailing blank frames keep T above L, as sub-sampling should.
    hs = frames(*ENDINGS[ending], *[("<blank>", 0.0)] * 4)
    best = search(readable_decoder(), hs, **WAYS[way])[0]
    assert spell(best) == "abc"
    assert torch.isfinite(torch.as_tensor(best.score)) and float(best.score) > -1e4


def test_an_early_eos_cannot_cut_a_sentence():
    """Its score sum would be the best, being the shortest."""
    spelled = [("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0), ("<sos/eos>", 1.0)]
    hs = frames(*spelled, *[("<blank>", 0.0)] * 4, strength=1.5)
    hs[0, 1 + EOS] = 3.0  # <eos> is the likeliest token at the first step
    assert len(spell(search(readable_decoder(), hs, beam_size=4)[0])) >= 3


@pytest.mark.parametrize("way", WAYS)
def test_nothing_fired_gives_an_empty_hypothesis(way, caplog):
    hs = frames(("a", 0.2), ("b", 0.1), ("<blank>", 0.0))
    best = search(readable_decoder(), hs, **WAYS[way])[0]
    assert spell(best) == ""
    assert "no token fired" in caplog.text


def test_more_tokens_than_frames_is_told(caplog):
    """With maxlenratio 0 ESPnet stops after T tokens; a ratio lets them all out."""
    hs = frames(("a", 3.0), ("b", 2.0), ("<sos/eos>", 1.0))
    with caplog.at_level("WARNING"):
        best = search(readable_decoder(), hs)[0]
    assert "6 tokens fired from 3 encoder frames" in caplog.text
    assert spell(best) == "aaa"[: len(spell(best))]
    assert spell(search(readable_decoder(), hs, maxlenratio=3.0)[0]) == "aaabb"


def test_lm_takes_part():
    """An LM that loves 'd' moves an undecided token."""
    torch.manual_seed(0)
    lm = TransformerLM(
        len(TOKENS), pos_enc=None, embed_unit=8, att_unit=8, head=2, unit=16, layer=1
    ).eval()
    with torch.no_grad():
        lm.decoder.bias[TOKENS.index("d")] = 20.0
    hs = frames(("a", 1.0), ("b", 1.0), ("<sos/eos>", 1.0), *[("<blank>", 0.0)] * 3)
    hs[1, 1 + TOKENS.index("d")] = 7.5  # nearly as likely as b
    decoder = readable_decoder()
    assert spell(search(decoder, hs)[0]) == "ab"
    for way in ({}, {"batched": False}, {"ctc_weight": 0.1}):
        best = search(decoder, hs, lm=lm, lm_weight=0.2, **way)[0]
        assert spell(best) == "ad", way


def test_batched_search_equals_one_hypothesis_at_a_time():
    torch.manual_seed(1)
    decoder = readable_decoder()
    for _ in range(5):
        hs = torch.randn(14, len(TOKENS) + 1)
        hs[:, 0] = torch.rand(14) * 0.6
        for ctc_weight in (0.0, 0.4):
            one = search(decoder, hs, ctc_weight=ctc_weight, batched=False)
            many = search(decoder, hs, ctc_weight=ctc_weight, batched=True)
            assert spell(one[0]) == spell(many[0])
            assert float(one[0].score) == pytest.approx(float(many[0].score), abs=1e-4)


needs_utterance_batches = pytest.mark.skipif(
    "x_lengths" not in inspect.signature(BatchBeamSearch.forward).parameters,
    reason="ESPnet 202511 decodes one utterance at a time",
)


@needs_utterance_batches
@pytest.mark.parametrize("ctc", [False, True], ids=["alone", "with CTC"])
@pytest.mark.parametrize("beam_size", [1, 4])
def test_batches_of_utterances_equal_single_decoding(beam_size, ctc):
    torch.manual_seed(2)
    decoder = readable_decoder()
    lengths = torch.tensor([14, 9, 14, 5, 1])
    hs_pad = torch.randn(5, 14, len(TOKENS) + 1) * 2
    hs_pad[..., 0] = torch.rand(5, 14) * 0.7
    # FrameCTC has no masks: compare CTC on utterances that fill the batch
    kept = [0, 2] if ctc else [0, 1, 2, 3, 4]
    weight = 0.3 if ctc else 0.0
    together = search(
        decoder,
        hs_pad[kept],
        beam_size=beam_size,
        ctc_weight=weight,
        x_lengths=lengths[kept],
    )
    for b, nbest in zip(kept, together, strict=True):
        alone = search(
            decoder, hs_pad[b, : lengths[b]], beam_size=beam_size, ctc_weight=weight
        )
        assert [spell(h) for h in nbest[:1]] == [spell(h) for h in alone[:1]]
        assert float(nbest[0].score) == pytest.approx(float(alone[0].score), abs=1e-4)


def test_ending_rule():
    logp = torch.log(torch.tensor([[0.1, 0.2, 0.7]])).repeat(4, 1)
    lengths = torch.tensor([6, 4, 3, 2])
    masked = mask_by_fired_length(logp.clone(), 2, lengths, eos=2, eos_slack=1)
    assert masked[0, 2] == -1e10 and torch.equal(masked[0, :2], logp[0, :2])  # early
    assert torch.equal(masked[1], logp[1])  # L - 2: one before the last vector
    assert torch.equal(masked[2], logp[2])  # L - 1
    assert masked[3].tolist() == [-1e10, -1e10, 0.0]  # all vectors are used
    half = mask_by_fired_length(logp.half(), 2, lengths, eos=2, eos_slack=1)
    assert torch.isfinite(half).all()
