"""``ctc_guide_firing: spikes``: recognition fires at the spikes of CTC's best path."""

import copy

import pytest
import torch
from espnet2.bin.asr_inference import Speech2Text as StockSpeech2Text
from sharp_ctc import sharpened
from tiny_model import slice_batch, tiny_batch, tiny_model
from tiny_speech import CHANGES, model_files, noise
from tiny_stream import streaming_conf

from espnet_cif_hkd import UserError
from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.stream import check_model
from espnet_cif_hkd.losses.ctc_path import ctc_free_spikes
from espnet_cif_hkd.search.greedy import greedy_search

SPIKES = {"model_conf": {"ctc_guide_firing": "spikes"}}


def encoded(model, batch):
    with torch.no_grad():
        return model.encode(batch["speech"], batch["speech_lengths"])


def test_a_token_fires_at_each_spike():
    model, batch = sharpened(tiny_model(**SPIKES)), tiny_batch(6)
    hs_pad, hlens = encoded(model, batch)
    with torch.no_grad():
        spikes, counts = ctc_free_spikes(model.ctc.log_softmax(hs_pad), hlens)
        fired = model.decoder.fire(hs_pad, hlens)
        alpha = model.decoder.predictor(hs_pad, hlens)
    expected = integrate_and_fire(hs_pad, alpha, hlens, counts + 1, segment_ends=spikes)
    # The first utterance has a token in each of its last two frames.
    assert torch.equal(fired.lengths[1:5], counts[1:5] + 1)
    free = integrate_and_fire(hs_pad, alpha, hlens)
    assert torch.equal(fired.alpha[0], free.alpha[0])
    assert len(set(counts[1:5].tolist())) > 2
    for b, count in list(enumerate(counts.tolist()))[1:5]:
        torch.testing.assert_close(
            fired.embeddings[b, : count + 1], expected.embeddings[b, : count + 1]
        )
        # A token of the last frame fires a frame earlier: <eos> has the last frame.
        times = (spikes[b, :count] + 1.0).clamp(max=hlens[b] - 1).double()
        torch.testing.assert_close(fired.firing_times[b, :count], times)
    # With a known number of tokens alpha decides, as without the option.
    plain = sharpened(tiny_model())
    known = [one.decoder.fire(hs_pad, hlens, counts + 1) for one in (model, plain)]
    assert torch.equal(known[0].embeddings, known[1].embeddings)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_threshold_fires_where_all_tokens_together_are_likely():
    conf = {**SPIKES["model_conf"], "ctc_guide_threshold": 0.6}
    model, batch = sharpened(tiny_model(model_conf=conf)), tiny_batch(6)
    hs_pad, hlens = encoded(model, batch)
    with torch.no_grad():
        logp = model.ctc.log_softmax(hs_pad)
        spikes, counts = ctc_free_spikes(logp, hlens, threshold=0.6)
        fired = model.decoder.fire(hs_pad, hlens)
    # An utterance with a token in its last frame may keep its alpha.
    chosen = [b for b in range(6) if int(spikes[b].max()) < int(hlens[b]) - 1]
    assert len(chosen) > 1
    assert torch.equal(fired.lengths[chosen], counts[chosen] + 1)
    assert not torch.equal(counts, ctc_free_spikes(logp, hlens)[1])
    for b in chosen:
        count = int(counts[b])
        times = spikes[b, :count] + 1.0
        torch.testing.assert_close(fired.firing_times[b, :count], times.double())


def test_companions_change_nothing():
    model, batch = sharpened(tiny_model(**SPIKES)), tiny_batch(5)
    together = greedy_search(model.decoder, *encoded(model, batch))
    for b in range(5):
        alone = greedy_search(model.decoder, *encoded(model, slice_batch(batch, [b])))
        assert torch.equal(alone[0].yseq, together[b].yseq)
        assert alone[0].score == pytest.approx(together[b].score, abs=1e-4)


def test_a_copy_has_its_own_ctc():
    model, batch = sharpened(tiny_model(**SPIKES)), tiny_batch(4)
    other = copy.deepcopy(model)
    sharpened(other, seed=5)
    assert other.decoder.ctc_firing.ctc is other.ctc
    fired = [one.decoder.fire(*encoded(one, batch)) for one in (model, other)]
    assert fired[0].lengths.tolist() != fired[1].lengths.tolist()
    again = copy.deepcopy(model).decoder.fire(*encoded(model, batch))
    assert torch.equal(again.embeddings, fired[0].embeddings)


def test_validation_fires_as_recognition_does():
    batch = slice_batch(tiny_batch(6), slice(1, 5))
    plain, model = sharpened(tiny_model()), sharpened(tiny_model(**SPIKES))
    hs_pad, hlens = encoded(model, batch)
    _, counts = ctc_free_spikes(model.ctc.log_softmax(hs_pad), hlens)
    lengths = batch["text_lengths"]
    found, other = model(**batch)[1], plain(**batch)[1]
    expected = (counts - lengths).abs().sum() / (lengths + 1).sum()
    assert float(found["length_error"]) == pytest.approx(float(expected))
    assert float(other["length_error"]) != pytest.approx(float(expected))
    for name in ("loss", "acc", "loss_quantity", "drift"):
        assert torch.equal(found[name], other[name])


def test_nothing_but_blanks_is_no_text():
    model = tiny_model(**SPIKES).eval()
    with torch.no_grad():
        model.ctc.ctc_lo.bias.zero_()[model.blank_id] = 99.0
    batch = tiny_batch(2)
    fired = model.decoder.fire(*encoded(model, batch))
    assert fired.lengths.tolist() == [1, 1]


@pytest.fixture(scope="module", params=["cif", "cif_nar"])
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp")
    changes = {**CHANGES, **SPIKES, "decoder": request.param}
    config, parameters = model_files(folder, **changes)
    torch.save(sharpened(tiny_model(**changes)).state_dict(), parameters)
    return config, parameters


def test_espnets_search_and_ours_find_the_same(files):
    config, parameters = files
    stock = StockSpeech2Text(
        config, parameters, beam_size=1, ctc_weight=0.0, lm_weight=0.0
    )
    ours = Recognizer(parameters)
    for seed in range(3):
        samples = noise(1.5, seed)
        found = ours.recognise(samples).validate()
        assert found.text == stock(samples)[0][0]
        times = [one.start for one in found.tokens]
        assert times == sorted(times)
    assert len(found.tokens) > 2


def test_a_known_text_fires_at_ctcs_forced_alignment(files):
    recognizer = Recognizer(files[1])
    found = recognizer.align(noise(2.0), "ABC DE").validate()
    assert found.text == "ABC DE" and len(found.tokens) == 6


def test_a_stream_is_refused():
    conf = streaming_conf()
    conf["model_conf"] = {**conf.get("model_conf", {}), **SPIKES["model_conf"]}
    with pytest.raises(UserError, match="ctc_guide_firing: alpha, not spikes") as error:
        check_model(tiny_model(**conf))
    assert "\n" not in str(error.value)
