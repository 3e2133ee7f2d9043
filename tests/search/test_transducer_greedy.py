"""The greedy search of a transducer gives what ESPnet's gives for each utterance."""

import pytest
import torch
import yaml
from espnet2.asr.transducer.beam_search_transducer import BeamSearchTransducer
from tiny_speech import CHANGES, noise
from transducer_parts import tiny_transducer, transducer_config

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.search.transducer_greedy import transducer_greedy_search

LENGTHS = (24, 9, 17, 24, 1, 13)


def emitting(**changes):
    """A model that emits different tokens, and blanks between them."""
    model = tiny_transducer(std=1.0, **changes).eval()
    model.joint_network.lin_out.bias.data[0] += 3.0
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoder_conf",
    [
        {"hidden_size": 8, "num_layers": 2},
        {"hidden_size": 8, "rnn_type": "gru", "dropout": 0.5, "dropout_embed": 0.5},
    ],
    ids=["lstm", "gru"],
)
def test_equals_espnets_search(decoder_conf):
    model = emitting(decoder_conf=decoder_conf)
    hs_pad = torch.randn(len(LENGTHS), max(LENGTHS), 8)
    for b, n in enumerate(LENGTHS):
        hs_pad[b, n:] = torch.nan
    parts = model.decoder, model.joint_network
    espnets = BeamSearchTransducer(*parts, beam_size=1)
    together = transducer_greedy_search(*parts, hs_pad, torch.tensor(LENGTHS))
    for hs, n, found in zip(hs_pad, LENGTHS, together, strict=True):
        [expected] = espnets(hs[:n])
        assert found.yseq.tolist() == expected.yseq
        assert found.score == pytest.approx(expected.score, abs=1e-4)
        [alone] = transducer_greedy_search(*parts, hs[None, :n], torch.tensor([n]))
        assert torch.equal(alone.yseq, found.yseq)
    emitted = [len(one.yseq) - 1 for one in together]
    assert any(0 < n < frames for n, frames in zip(emitted, LENGTHS))
    assert len({token for one in together for token in one.yseq.tolist()}) > 3


def test_nothing_emitted():
    model = tiny_transducer().eval()
    model.joint_network.lin_out.bias.data[0] = 100.0
    [found] = transducer_greedy_search(
        model.decoder, model.joint_network, torch.randn(1, 5, 8), torch.tensor([5])
    )
    assert found.yseq.tolist() == [0] and found.score == 0.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp")
    config, parameters = folder / "config.yaml", folder / "1epoch.pth"
    config.write_text(yaml.safe_dump(transducer_config(token_type="char", **CHANGES)))
    torch.save(emitting(**CHANGES).state_dict(), parameters)
    return str(config), str(parameters)


def test_speech2text_greedy_equals_espnets_beam_one(files):
    greedy = Speech2Text(*files, greedy=True)
    beam = Speech2Text(*files, beam_size=1)
    waves = [noise(1.0), noise(0.8, seed=3), noise(0.6, seed=1), noise(1.5, seed=2)]
    expected = beam(waves)
    for wave, [found], [other] in zip(waves, greedy(waves), expected, strict=True):
        [single] = greedy(wave)
        assert found[:3] == single[:3] == other[:3]
        assert found[3].yseq.tolist() == other[3].yseq
    assert any(found[2] for [found] in expected)
    [(text, *_)] = greedy(noise(0.02))
    assert text == ""


def test_greedy_refuses_other_decoders(tmp_path):
    from espnet_parts import HYBRID
    from tiny_speech import model_files

    files = model_files(tmp_path, **HYBRID, **CHANGES)
    with pytest.raises(UserError, match="'decoder: cif' or 'decoder: transducer'"):
        Speech2Text(*files, greedy=True)
