"""``Recognizer.stream()`` and ``Recognizer.long()`` of a model in a folder."""

import shutil

import pytest
import torch
import yaml
from tiny_model import tiny_config
from tiny_speech import RATE, noise
from tiny_stream import streaming_conf, streaming_model

from espnet_cif_hkd import UserError
from espnet_cif_hkd.inference.calibration import Calibration, write_calibration
from espnet_cif_hkd.inference.joining import joined
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.io.digest import sha256


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp")
    conf = tiny_config(token_type="char", **streaming_conf())
    (folder / "config.yaml").write_text(yaml.safe_dump(conf), encoding="utf-8")
    torch.save(streaming_model().state_dict(), folder / "1epoch.pth")
    return Recognizer(folder)


def test_three_ways_to_the_same_text(recognizer):
    samples = noise(1.2)
    expected = recognizer.recognise(samples)
    stream = recognizer.stream()
    parts = [stream.accept(samples[n : n + 700]) for n in range(0, len(samples), 700)]
    found = stream.finish().validate()
    assert found.text == expected.text and len(found.text) > 5
    assert [one.id for one in found.tokens] == [one.id for one in expected.tokens]
    # Text comes before the end
    assert 0 < len(parts[-1].tokens) <= len(found.tokens)

    def read(start, end):
        return samples[round(start * RATE) : round(end * RATE)]

    assert joined(recognizer.long(read, 1.2), 1.2).tokens == expected.tokens


def test_options_reach_the_stream(recognizer):
    assert recognizer.stream(beam_size=2, limit=300).options.limit == 300
    with pytest.raises(UserError, match="a stream has no option 'chunk'"):
        recognizer.stream(chunk=16)
    with pytest.raises(UserError, match="long audio has no option 'chunk'"):
        next(recognizer.long(lambda start, end: noise(1.0), 1.0, chunk=16))


@pytest.mark.slow
def test_a_state_belongs_to_search_and_calibration(recognizer, tmp_path):
    folder = shutil.copytree(recognizer.model_file.parent, tmp_path / "exp")
    state, samples = tmp_path / "state.npz", noise(1.2)

    def passages(one):
        return one.long(lambda start, end: samples, 1.2, state=state)

    beam = {"greedy": False, "beam_size": 2}
    searches = [
        {},
        beam,
        {**beam, "beam_size": 3},
        {**beam, "ctc_weight": 0.1},
        {**beam, "lm_weight": 0.5},
    ]
    made = [Recognizer(folder, **one) for one in searches]
    again = [Recognizer(folder, **one) for one in searches]
    model = folder / "1epoch.pth"
    write_calibration(model, Calibration(sha256(model), Timing(0.0, 0.3)))
    made += [Recognizer(folder)]
    for place in (0, 1):
        run = passages(made[place])
        first = next(run)
        run.close()
        for other in made[:place] + made[place + 1 :]:
            with pytest.raises(UserError, match="another audio, model or of other opt"):
                next(passages(other))
        assert list(passages(again[place])) == [first] and first.tokens
        assert not state.exists()
