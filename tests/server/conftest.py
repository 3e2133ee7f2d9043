"""A server in this process with a fake model."""

import pytest
from fake_recogniser import FakeRecogniser

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from fastapi.testclient import TestClient

from espnet_cif_hkd.server.app import create_app
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Models

LIMITS = Limits(
    megabytes=0.2, seconds=10, places=2, streams=1, picture_seconds=2, long_above=3
)


@pytest.fixture
def model():
    """The model ``levels``."""
    return FakeRecogniser()


@pytest.fixture
def client(model):
    """A client of a server with small limits."""
    models = Models(
        {"levels": model, "deaf": FakeRecogniser(streams=False)},
        {"/secret/folder": "levels"},
    )
    app = create_app(models, LIMITS, hosts=["speech.example"])
    with TestClient(
        app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False
    ) as one:
        yield one


@pytest.fixture
def send(client):
    """Sends a file; returns the response."""

    def post(content, name="a.wav", **fields):
        data = {"model": "levels", **fields}
        return client.post(
            "/v1/audio/transcriptions", files={"file": (name, content)}, data=data
        )

    return post
