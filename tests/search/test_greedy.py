"""The greedy search of our own gives what ESPnet's search with beam 1 gives."""

import pytest
import torch
from readable_decoder import ENDINGS, EOS, frames, readable_decoder, search, spell
from tiny_speech import CHANGES, model_files, noise

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.search.greedy import greedy_search


def alone(decoder, hs, **options):
    return greedy_search(decoder, hs[None], torch.tensor([len(hs)]), **options)[0]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_gives_the_complete_sentence(ending):
    hs = frames(*ENDINGS[ending], *[("<blank>", 0.0)] * 4)
    assert spell(alone(readable_decoder(), hs)) == "abc"


@pytest.mark.parametrize("maxlenratio", [0.0, -4.0, 0.25, 0.01])
def test_beam_one_and_a_batch_give_the_same(maxlenratio):
    """Attention, positions, limits and padding: a decoder with random layers."""
    torch.manual_seed(3)
    decoder = CIFDecoder(EOS + 1, 8, attention_heads=2, linear_units=16).double().eval()
    hs_pad = torch.randn(6, 24, 8).double()
    hlens = torch.tensor([24, 9, 17, 24, 1, 13])
    decoder.predictor.output.bias.data.fill_(-0.5)
    together = greedy_search(decoder, hs_pad, hlens, maxlenratio)
    assert len({len(one.yseq) for one in together}) > 1 or maxlenratio != 0.0
    for hs, n, found in zip(hs_pad, hlens, together, strict=True):
        single = alone(decoder, hs[:n], maxlenratio=maxlenratio)
        expected = search(decoder, hs[:n], beam_size=1, maxlenratio=maxlenratio)[0]
        assert torch.equal(found.yseq, single.yseq)
        assert found.yseq.tolist() == _one_eos(expected.yseq.tolist())
        assert found.score == pytest.approx(single.score, abs=1e-9)
        assert found.score == pytest.approx(float(expected.score), abs=1e-5)


def _one_eos(ids):
    """ESPnet writes a second <eos> after one at the limit."""
    return ids[:-1] if len(ids) > 2 and ids[-2:] == [EOS, EOS] else ids


def test_an_early_eos_cannot_cut_a_sentence():
    spelled = [("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0), ("<sos/eos>", 1.0)]
    hs = frames(*spelled, *[("<blank>", 0.0)] * 4, strength=1.5)
    hs[0, 1 + EOS] = 3.0  # <eos> is the likeliest token at the first step
    assert len(spell(alone(readable_decoder(), hs))) >= 3


def test_nothing_fired_gives_an_empty_hypothesis(caplog):
    nothing = frames(("a", 0.2), ("b", 0.1), ("<blank>", 0.0))
    something = frames(("a", 1.0), ("<sos/eos>", 1.0), ("<blank>", 0.0))
    both = torch.stack([nothing, something])
    empty, full = greedy_search(readable_decoder(), both, torch.tensor([3, 3]))
    assert spell(empty) == "" and empty.score == 0.0 and spell(full) == "a"
    assert spell(alone(readable_decoder(), nothing)) == ""
    assert "no token fired" in caplog.text


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return model_files(tmp_path_factory.mktemp("exp"), **CHANGES)


def test_speech2text_greedy_equals_espnets_beam_one(files, caplog):
    greedy = Speech2Text(*files, greedy=True)
    beam = Speech2Text(*files, beam_size=1, ctc_weight=0.0)
    waves = [noise(1.0), noise(0.8, seed=3), noise(0.6, seed=1), noise(1.5, seed=2)]
    together = greedy(waves)
    for wave, [found] in zip(waves, together, strict=True):
        [single], [expected] = greedy(wave), beam(wave)
        assert found[:3] == single[:3] == expected[:3]
        assert found[3].yseq.tolist() == expected[3].yseq.tolist()
        assert found[3].score == pytest.approx(float(expected[3].score), abs=1e-4)
    assert any(found[2] for [found] in together)
    assert greedy([waves[0], noise(0.01)])[0][0][:3] == together[0][0][:3]
    [(text, *_)] = greedy(noise(0.01))
    assert text == "" and "the hypothesis is empty" in caplog.text


def test_greedy_from_pretrained(files):
    built = Speech2Text.from_pretrained(
        asr_train_config=files[0], asr_model_file=files[1], greedy=True
    )
    assert (
        built.greedy
        and built(noise(1.0))[0][:3]
        == (Speech2Text(*files, greedy=True)(noise(1.0))[0][:3])
    )


@pytest.mark.parametrize(
    "options", [{"beam_size": 4}, {"ctc_weight": 0.3}, {"nbest": 2}]
)
def test_options_that_contradict_are_named(files, options):
    with pytest.raises(UserError, match=f"greedy: {next(iter(options))} is"):
        Speech2Text(*files, greedy=True, **options)
