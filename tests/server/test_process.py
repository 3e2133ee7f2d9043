"""The command, in a process of its own and over sockets."""

import json
import urllib.request

import pytest
from level_recogniser import RATE, audio_file, levels
from websockets.sync.client import connect

pytestmark = pytest.mark.slow


@pytest.fixture
def official(served):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0)


def test_openai_client_over_a_socket(official):
    found = official.audio.transcriptions.create(
        file=("a.flac", audio_file(levels(1, 2, 3), form="FLAC")),
        model="levels",
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )

    assert [one.word for one in found.words] == ["one", "two", "three"]


def test_a_large_upload_gets_its_answer(official):
    import openai

    for size in (1_500_000, 20_000_000):
        with pytest.raises(openai.APIStatusError) as refused:
            official.audio.transcriptions.create(
                file=("a.wav", bytes(size)), model="levels"
            )
        assert refused.value.status_code == 413 and "1 MB" in refused.value.message


def test_a_stream_over_a_socket(served):
    with connect(f"{served.replace('http', 'ws')}/v1/stream") as socket:
        socket.send(json.dumps({"type": "start", "rate": RATE, "format": "float32"}))
        assert json.loads(socket.recv())["type"] == "ready"
        socket.send(levels(4, 5).astype("<f4").tobytes())
        partial = json.loads(socket.recv())["recognition"]
        assert partial["text"] == "four five"
        socket.send(json.dumps({"type": "stop"}))
        assert json.loads(socket.recv())["recognition"]["text"] == "four five"


def test_it_does_not_say_what_it_runs_on(served):
    with urllib.request.urlopen(f"{served}/health") as answer:
        assert answer.status == 200 and "server" not in answer.headers
