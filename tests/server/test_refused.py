"""What the server refuses: status, reason in OpenAI's format, no paths."""

import re

import numpy as np
import pytest
from level_recogniser import audio_file, levels
from starlette.websockets import WebSocketDisconnect

WAV = audio_file(levels(1))
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
STREAM = "ws://127.0.0.1:8000/v1/stream"
TRANSCRIBE = "/v1/audio/transcriptions"


def error(answer, status):
    """The error of a response; its format and headers are checked."""
    assert answer.status_code == status, answer.text
    (found,) = answer.json().values()
    assert set(found) == {"message", "type", "param", "code"}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    assert found["type"] == kind
    assert not re.search("/(secret|tmp|var|home|root|work)|\n", found["message"])
    return found


def nan():
    samples = levels(1)
    samples[5] = np.nan
    return audio_file(samples, subtype="FLOAT")


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", "invalid_audio", "the file is empty"),
        (b"RIFF but no audio", "unknown_format", "is no audio"),
        (b"\0" * 500, "unknown_format", "is no audio"),
        (
            audio_file(NOISE, form="FLAC")[:2000],
            "invalid_audio",
            "cannot be recognised",
        ),
        (audio_file(np.zeros(0)), "invalid_audio", "has no samples"),
        (nan(), "invalid_audio", "NaN"),
        (audio_file(levels(*[1] * 41)), "audio_too_long", "10.2 s, more than 10 s"),
        (audio_file(np.zeros(50), rate=500), "invalid_audio", "1 channels at 500 Hz"),
        (audio_file(np.zeros((9, 65))), "invalid_audio", "65 channels at"),
        (audio_file(levels(10)), "invalid_audio", "too loud for this model"),
    ],
    ids=[
        "empty",
        "text",
        "zeros",
        "cut",
        "none",
        "nan",
        "long",
        "rate",
        "channels",
        "model",
    ],
)
def test_bad_audio(send, content, code, message):
    found = error(send(content), 400)

    assert found["code"] == code and message in found["message"]
    assert found["param"] == "file"
    assert send(WAV).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "docx"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"stream": "true"}, "stream"),
        ({"include[]": "logprobs"}, "include"),
        ({"include[]": "alphas"}, "include"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"language": "x" * 33}, "language"),
    ],
)
def test_bad_fields(send, fields, param):
    found = error(send(WAV, **fields), 400)

    assert found["param"] == param and param in found["message"]


def test_unknown_model(send):
    found = error(send(WAV, model="whisper-1"), 404)

    assert found["code"] == "model_not_found" and "levels, deaf" in found["message"]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"json": {"file": "x"}},
        {"data": {"file": "a text"}},
        {"files": [("file", b"a"), ("file", b"b")]},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
    ],
    ids=["nothing", "json", "text", "two", "no_boundary"],
)
def test_requests_without_a_file(client, request_):
    error(client.post(TRANSCRIBE, **request_), 400)


def test_unknown_address_and_method(client):
    assert error(client.get("/v1/other"), 404)["code"] == "not_found"
    assert error(client.get(TRANSCRIBE), 405)["code"] == "method_not_allowed"


def test_large_upload_is_refused_by_its_announced_size(send, model):
    found = error(send(bytes(300_000)), 413)

    assert found["code"] == "file_too_large" and "0.2 MB" in found["message"]
    assert model.started == 0


def test_large_upload_of_unknown_size_is_not_read_to_its_end(client):
    sent = 0

    def body():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename=a\r\n\r\n'
        for _ in range(400):
            sent += 1000
            yield bytes(1000)

    kind = "multipart/form-data; boundary=x"
    answer = client.post(TRANSCRIBE, content=body(), headers={"content-type": kind})

    assert error(answer, 413)["code"] == "file_too_large"
    assert client.get("/health").json()["requests"]["now"] == 0


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST.:8000", True),
        ("[::1]:8000", True),
        ("192.168.1.7", True),
        ("speech.example", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example@127.0.0.1", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_host_names(client, host, allowed):
    for path in ("/", "/v1/models"):
        answer = client.get(path, headers={"host": host})
        if allowed:
            assert answer.status_code == 200
        else:
            assert error(answer, 403)["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.0.0.1:9000", False),
        ("https://evil.example", False),
        ("null", False),
        ("http://[", False),
        ("http://127.0.0.1:x:8000", False),
    ],
)
def test_pages_of_other_sites(client, origin, allowed):
    answer = client.post(TRANSCRIBE, files={"file": WAV}, headers={"origin": origin})

    assert answer.status_code == (200 if allowed else 403)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["http://[", "https://evil.example"])
def test_streams_of_pages_of_other_sites(client, origin):
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect(STREAM, headers={"origin": origin}),
    ):
        pass
    assert refused.value.code == 1008


def test_every_response_has_a_policy(client):
    for path in ("/", "/page.js", "/health", "/v1/other"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"


def test_an_unexpected_error_has_no_details(send, model, monkeypatch):
    def fail(samples):
        raise RuntimeError("/secret/folder/weights.pth")

    with monkeypatch.context() as patched:
        patched.setattr(model, "recognise", fail)
        found = error(send(WAV), 500)

    assert "secret" not in found["message"] and found["code"] == "internal_error"
    assert send(WAV).status_code == 200
