"""A server in this process with a fake model."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from level_recogniser import LevelRecogniser

from espnet_cif_hkd.server.app import create_app
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Models

SUPPORT = Path(__file__).parents[1] / "support"
LIMITS = Limits(
    megabytes=0.2, seconds=10, places=2, streams=1, picture_seconds=2, long_above=3
)


@pytest.fixture
def model():
    """The model ``levels``."""
    return LevelRecogniser()


@pytest.fixture
def client(model):
    """A client of a server with small limits."""
    models = Models(
        {"levels": model, "deaf": LevelRecogniser(streams=False)},
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


@pytest.fixture(scope="session")
def served():
    """The address of a server in a process of its own."""
    paths = [str(SUPPORT), os.environ["PYTHONPATH"]]
    process = subprocess.Popen(
        [
            *(sys.executable, str(SUPPORT / "serve_fake.py"), "--model", "levels=any"),
            *("--port", "0", "--max_mb", "1"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        for line in process.stderr:
            if found := re.search(r"(http://\S+) serves levels", line):
                break
        else:
            pytest.fail("the server has not started")
        # A full pipe would stop it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[1]
    finally:
        process.terminate()
        process.wait(20)
