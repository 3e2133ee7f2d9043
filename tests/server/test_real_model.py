"""The server with a model of ESPnet: files, long files, streams, pictures."""

import json

import numpy as np
import pytest
import torch
import yaml
from level_recogniser import audio_file
from starlette.testclient import TestClient
from tiny_model import CIF_CONFORMER, tiny_config, tiny_model
from tiny_speech import CHANGES, RATE, noise

from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.writers.verbose_json import recognition_of
from espnet_cif_hkd.server.app import create_app
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Models

SAMPLES = np.asarray(noise(1.7), dtype=np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    encoder = {**CIF_CONFORMER["encoder_conf"], "chunk_size": 3, "left_chunks": 2}
    changes = {**CHANGES, "encoder": "cif_conformer", "encoder_conf": encoder}
    config = tiny_config(token_type="char", **changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(tiny_model(**changes).state_dict(), folder / "1epoch.pth")
    return Recognizer(folder)


@pytest.fixture
def client(model):
    app = create_app(Models({"tiny": model}, {}), Limits(long_above=3))
    with TestClient(app, base_url="http://localhost") as one:
        yield one


def ask(client, samples):
    answer = client.post(
        "/v1/audio/transcriptions",
        files={"file": audio_file(samples, RATE, subtype="FLOAT")},
        data={
            "response_format": "verbose_json",
            "timestamp_granularities[]": ["word", "segment"],
            "include[]": "alphas",
        },
    )
    assert answer.status_code == 200, answer.text
    content = answer.json()
    del content["usage"], content["notes"]
    return content.pop("alphas"), recognition_of(content)


def ids(found):
    return [token.id for token in found.tokens]


def test_a_file_and_its_picture(client, model):
    alphas, found = ask(client, SAMPLES)

    expected = model.recognise(SAMPLES)
    assert found.validate().text == expected.text and found.tokens
    assert ids(found) == ids(expected)
    assert len(alphas["edges"]) == len(alphas["alpha"]) + 1
    assert 0 <= alphas["edges"][0] < alphas["edges"][-1] <= found.duration
    assert alphas["edges"] == sorted(alphas["edges"])
    # Every token and <eos> needs a sum of one; the tail may fire with less.
    assert len(alphas["firings"]) == pytest.approx(sum(alphas["alpha"]), abs=1)
    assert alphas["firings"] == sorted(alphas["firings"])


@pytest.mark.slow
def test_a_long_file_is_recognised_in_windows(client, model):
    samples = np.tile(SAMPLES, 3)
    alphas, found = ask(client, samples)

    (expected,) = model.long(
        lambda start, end: samples[round(start * RATE) : round(end * RATE)],
        len(samples) / RATE,
    )
    assert alphas is None and ids(found.validate()) == ids(expected)


@pytest.mark.slow
def test_a_stream(client, model):
    expected = model.stream()
    expected.accept(SAMPLES)
    final = expected.finish()
    with client.websocket_connect("ws://localhost/v1/stream") as socket:
        socket.send_json({"type": "start", "rate": RATE, "format": "float32"})
        assert socket.receive_json()["type"] == "ready"
        for first in range(0, len(SAMPLES), 999):
            socket.send_bytes(SAMPLES[first : first + 999].tobytes())
        socket.send_text(json.dumps({"type": "stop"}))
        partials = []
        while (answer := socket.receive_json())["type"] == "partial":
            partials.append(Recognition.from_dict(answer["recognition"]))
    found = Recognition.from_dict(answer["recognition"])
    assert ids(found.validate()) == ids(final) and len(partials) > 1
    shown = [token.id for one in partials for token in one.tokens]
    assert shown == ids(final)[: len(shown)]


def test_audio_that_is_too_short_has_no_picture(client, model):
    alphas, found = ask(client, SAMPLES[:50])

    assert alphas is None and found.text == ""
