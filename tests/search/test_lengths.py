"""``length_conf``: the decoder chooses the number of tokens."""

import pytest
import torch
from espnet2.bin.asr_inference import Speech2Text as StockSpeech2Text
from readable_decoder import EOS, frames, readable_decoder, search, spell
from sharp_ctc import sharpened
from tiny_model import slice_batch, tiny_batch, tiny_model
from tiny_speech import CHANGES, model_files, noise

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.search.lengths import LengthSearch, build_length_search

SLACK, BONUS = 2, 0.4
CHOOSES = {"model_conf": {"length_conf": {"slack": SLACK, "bonus": BONUS}}}


def random_decoder(kind=CIFDecoder, **options):
    torch.manual_seed(3)
    sizes = {"attention_heads": 2, "linear_units": 16}
    decoder = kind(EOS + 1, 8, **sizes, **options).double().eval()
    decoder.predictor.output.bias.data.fill_(-0.5)
    return decoder


def random_frames():
    torch.manual_seed(5)
    return torch.randn(6, 24, 8).double(), torch.tensor([24, 9, 17, 24, 1, 13])


def by_hand(decoder, hs, slack, bonus):
    """Oracle: search each number of tokens alone, by the known-length search."""
    decoder.length_search = None
    lengths = torch.tensor([len(hs)])
    n = int(decoder.fire(hs[None], lengths).lengths[0])
    best, best_score = None, None
    for change in sorted(range(-slack, slack + 1), key=lambda k: (abs(k), k)):
        if change == 0:
            [found] = greedy_search(decoder, hs[None], lengths)
        elif n == 0 or not 0 < n + change <= len(hs):
            continue
        else:
            known = torch.tensor([n + change])
            [found] = greedy_search(decoder, hs[None], lengths, target_lengths=known)
            if len(found.yseq) == 2:
                continue
        if bonus is None:
            score = found.score / (len(found.yseq) - 1)
        else:
            score = found.score + bonus * (len(found.yseq) - 2)
        if best is None or score > best_score:
            best, best_score = found, score
    return best


@pytest.mark.parametrize("window", [0, 2], ids=["vectors", "near frames"])
@pytest.mark.parametrize("kind", [CIFDecoder, CIFNARDecoder])
@pytest.mark.parametrize("bonus", [None, 0.0, 0.4, 3.0, -3.0])
def test_the_best_of_all_lengths_is_chosen(kind, bonus, window):
    decoder = random_decoder(kind, frame_window=window)
    hs_pad, hlens = random_frames()
    expected = [
        by_hand(decoder, hs[:n], SLACK, bonus)
        for hs, n in zip(hs_pad, hlens, strict=True)
    ]
    plain = greedy_search(decoder, hs_pad, hlens)
    decoder.length_search = LengthSearch(SLACK, bonus)
    found = greedy_search(decoder, hs_pad, hlens)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.yseq, other.yseq)
        assert one.score == pytest.approx(other.score, abs=1e-6)
    if bonus is not None and abs(bonus) == 3.0:
        change = [len(a.yseq) - len(b.yseq) for a, b in zip(found, plain, strict=True)]
        assert sum(change) * bonus > 0


def test_a_known_length_is_not_changed():
    decoder = random_decoder()
    hs_pad, hlens = random_frames()
    known = torch.tensor([4, 3, 5, 2, 1, 6])
    plain = greedy_search(decoder, hs_pad, hlens, target_lengths=known)
    decoder.length_search = LengthSearch(3, 9.0)
    found = greedy_search(decoder, hs_pad, hlens, target_lengths=known)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one.yseq, other.yseq)


def test_espnets_search_has_the_same_number_of_vectors():
    decoder = random_decoder()
    hs_pad, hlens = random_frames()
    decoder.length_search = LengthSearch(SLACK, BONUS)
    for hs, n in zip(hs_pad, hlens, strict=True):
        [found] = greedy_search(decoder, hs[None, :n], n[None])
        beam = search(decoder, hs[:n], beam_size=1)[0]
        ids = beam.yseq.tolist()
        ids = ids[:-1] if ids[-2:] == [EOS, EOS] and len(ids) > 2 else ids
        assert found.yseq.tolist() == ids


def test_the_bonus_brings_back_a_token_that_did_not_fire():
    """The sum of alpha, 2.4, is one token short of three and <eos>."""
    hs = frames(("a", 0.8), ("b", 0.8), ("c", 0.7), ("<sos/eos>", 0.1), strength=30.0)
    decoder = readable_decoder()
    lengths = torch.tensor([len(hs)])
    assert len(spell(greedy_search(decoder, hs[None], lengths)[0])) == 2
    decoder.length_search = LengthSearch(1, 30.0)
    [found] = greedy_search(decoder, hs[None], lengths)
    assert spell(found) == "abc"
    assert float(found.weights.sum()) == pytest.approx(3.0, abs=1e-6)


def test_a_sentence_with_tokens_does_not_become_empty():
    """<eos> alone is likelier than "a", but something was said."""
    hs = frames(("a", 0.6), ("<sos/eos>", 0.7), ("<sos/eos>", 0.7), strength=30.0)
    decoder = readable_decoder()
    lengths = torch.tensor([len(hs)])
    [plain] = greedy_search(decoder, hs[None], lengths)
    assert spell(plain) == "a"
    one = torch.tensor([1])
    [empty] = greedy_search(decoder, hs[None], lengths, target_lengths=one)
    decoder.length_search = LengthSearch(1, -50.0)
    [found] = greedy_search(decoder, hs[None], lengths)
    assert spell(found) == "a"
    assert spell(empty) == "" and empty.score > plain.score - 50.0


def test_nothing_fires_in_silence():
    nothing = frames(("a", 0.2), ("b", 0.1), ("<blank>", 0.0))
    decoder = readable_decoder()
    decoder.length_search = LengthSearch(3, 50.0)
    [found] = greedy_search(decoder, nothing[None], torch.tensor([3]))
    assert spell(found) == ""


@torch.no_grad()
def test_spikes_of_other_thresholds_are_tried():
    conf = {"ctc_guide_firing": "spikes", "ctc_guide_threshold": 0.5}
    plain = sharpened(tiny_model(model_conf=conf))
    batch = tiny_batch(6)
    hs_pad, hlens = plain.encode(batch["speech"], batch["speech_lengths"])
    usual = plain.decoder.fire(hs_pad, hlens).lengths
    alpha = plain.decoder.predictor(hs_pad, hlens)
    firing = plain.decoder.ctc_firing
    weights, wanted = firing.others(alpha, hs_pad, hlens, usual, 2)
    assert wanted.any()
    for row in range(len(usual)):
        counts = weights[row, wanted[row]].sum(dim=1)
        change = (counts - usual[row]).round().long().tolist()
        assert len(set(change)) == len(change) and 0 not in change
        assert all(abs(one) <= 2 for one in change)
        assert [abs(one) for one in change] == sorted(abs(one) for one in change)
        # A number of tokens is that of the spikes of some threshold.
        known = set()
        for threshold in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            firing.threshold = threshold
            known.add(int(plain.decoder.fire(hs_pad, hlens).lengths[row]))
        assert {int(usual[row]) + one for one in change} <= known
    firing.threshold = 0.5
    few, many = (
        greedy_search(chooser(conf, bonus).decoder, hs_pad, hlens)
        for bonus in (-9.0, 9.0)
    )
    assert sum(len(one.yseq) for one in few) < sum(len(one.yseq) for one in many)


def chooser(conf, bonus):
    choice = {"length_conf": {"slack": SLACK, "bonus": bonus}}
    return sharpened(tiny_model(model_conf={**conf, **choice}))


@torch.no_grad()
def test_companions_change_nothing():
    model, batch = tiny_model(**CHOOSES).eval(), tiny_batch(5)
    frames_of = model.encode(batch["speech"], batch["speech_lengths"])
    together = greedy_search(model.decoder, *frames_of)
    for b in range(5):
        part = slice_batch(batch, [b])
        alone = model.encode(part["speech"], part["speech_lengths"])
        [found] = greedy_search(model.decoder, *alone)
        assert torch.equal(found.yseq, together[b].yseq)


def test_training_and_validation_do_not_choose():
    plain, model = tiny_model().eval(), tiny_model(**CHOOSES).eval()
    batch = tiny_batch(4)
    with torch.no_grad():
        (loss, stats, _), (expected, known, _) = model(**batch), plain(**batch)
    assert torch.equal(loss, expected)
    assert torch.equal(stats["length_error"], known["length_error"])
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    conf = {**CHANGES.get("model_conf", {}), **CHOOSES["model_conf"]}
    changes = {**CHANGES, "model_conf": conf}
    return model_files(tmp_path_factory.mktemp("exp"), **changes)


def test_recognition_has_the_chosen_tokens_and_their_times(files):
    greedy, timed = (
        Speech2Text(*files, greedy=True, return_times=times) for times in (False, True)
    )
    stock = StockSpeech2Text(*files, beam_size=1, ctc_weight=0.0)
    beam = Speech2Text(*files, beam_size=3, ctc_weight=0.0, return_times=True)
    for wave in (noise(1.0), noise(0.8, seed=3), noise(1.5, seed=2)):
        [found], result = greedy(wave), timed(wave)
        assert found[2] == stock(wave)[0][2]
        assert [token.id for token in result.tokens] == found[2]
        ends = [token.end for token in result.tokens]
        assert ends == sorted(ends) and all(0 <= end <= result.duration for end in ends)
        assert beam(wave).tokens


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        (3, "length_conf is 3"),
        ({"slak": 3}, r"unknown keys \['slak'\]"),
        ({"slack": 0}, "length_conf.slack is 0"),
        ({"slack": True}, "length_conf.slack is True"),
        ({"slack": 1.5}, "length_conf.slack is 1.5"),
        ({"bonus": "0.2"}, "length_conf.bonus is '0.2'"),
        ({"bonus": float("nan")}, "length_conf.bonus is nan"),
        ({"bonus": True}, "length_conf.bonus is True"),
    ],
)
def test_wrong_options_are_refused(conf, message):
    with pytest.raises(UserError, match=message):
        build_length_search(conf)


def test_without_options_nothing_is_built():
    assert build_length_search(None) is None
    assert build_length_search({}) == LengthSearch()
