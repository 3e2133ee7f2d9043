"""``Recognizer.stream()`` and ``Recognizer.long()`` of a model in a folder."""

import pytest
import torch
import yaml
from tiny_model import tiny_config
from tiny_speech import RATE, noise
from tiny_stream import streaming_conf, streaming_model

from espnet_cif_hkd import UserError
from espnet_cif_hkd.inference.joining import joined
from espnet_cif_hkd.inference.recognizer import Recognizer


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
