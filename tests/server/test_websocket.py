"""The websocket: audio in pieces, partial results, and what is refused."""

import numpy as np
import pytest
from level_recogniser import NAMES, RATE, levels
from starlette.websockets import WebSocketDisconnect

from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.state import state_of

START = {"type": "start", "rate": RATE}
STOP = {"type": "stop"}
STREAM = "ws://127.0.0.1:8000/v1/stream"
LEVELS = [1, 4, 2, 7]


def int16(samples):
    return np.rint(samples * 2**15).astype("<i2").tobytes()


def float32(samples):
    return samples.astype("<f4").tobytes()


def pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


def talk(client, start, messages, **options):
    """Send a stream; return partial results, the final one, and its notes."""
    partials = []
    with client.websocket_connect(STREAM, **options) as socket:
        socket.send_json(start)
        ready = socket.receive_json()
        assert ready == {"type": "ready", "sampling_rate": RATE}
        for message in messages:
            socket.send_bytes(message)
        socket.send_json(STOP)
        while (answer := socket.receive_json())["type"] == "partial":
            partials.append(Recognition.from_dict(answer["recognition"]).validate())
        assert answer["type"] == "final"
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1000
    return partials, Recognition.from_dict(answer["recognition"]), answer["notes"]


@pytest.mark.parametrize("size", [1, 333, 4000, 10**6])
@pytest.mark.parametrize(("name", "encode"), [("int16", int16), ("float32", float32)])
def test_pieces_of_any_size_give_the_same_result(client, name, encode, size):
    data = encode(levels(*LEVELS))[: 40 if size == 1 else None]
    start = {**START, "format": name}
    partials, final, notes = talk(client, start, pieces(data, size))

    if size > 1:
        assert final.text == " ".join(NAMES[one] for one in LEVELS)
    assert final.duration == len(data) / np.dtype(name).itemsize / RATE
    assert "".join(one.text for one in partials) == final.text
    assert sum((one.tokens for one in partials), ()) == final.tokens
    assert notes == []


def test_another_rate_is_resampled(client):
    rate = 3 * RATE
    tone = np.sin(2 * np.pi * 440 / rate * np.arange(rate))
    samples = np.sqrt(2) * tone * levels(*LEVELS, rate=rate)
    _, final, _ = talk(client, {**START, "rate": rate}, pieces(int16(samples), 2000))

    assert final.text == " ".join(NAMES[one] for one in LEVELS)
    assert final.duration == pytest.approx(1.0, abs=2 / RATE)


def test_a_stream_that_ends_inside_a_sample(client):
    _, final, notes = talk(client, START, [int16(levels(1)), b"\x07"])

    assert final.text == "one" and notes == [
        "the last 1 bytes are no complete sample: left out"
    ]


def test_a_stream_without_audio(client):
    partials, final, _ = talk(client, START, [])

    assert partials == [] and final == Recognition()


def refused(client, *messages, headers=None):
    """Send messages; return the error that the server answers, and the close code."""
    options = {} if headers is None else {"headers": headers}
    with client.websocket_connect(STREAM, **options) as socket:
        for message in messages:
            if isinstance(message, bytes):
                socket.send_bytes(message)
            elif isinstance(message, str):
                socket.send_text(message)
            else:
                socket.send_json(message)
        while (answer := socket.receive_json())["type"] in ("ready", "partial"):
            pass
        assert answer["type"] == "error"
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    return answer["error"], closed.value.code


NAN = np.array([0.1, np.nan], "<f4").tobytes()


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ((b"\0\0",), "before the audio"),
        (("hello",), "must be a JSON object"),
        (("[1]",), "must be a JSON object"),
        (("[" * 100_000,), "must be a JSON object"),
        (({"type": "start"},), "start: rate: Field required"),
        (({"type": "go", "rate": 8000},), "start: type:"),
        (({**START, "rate": 10},), "start: rate:"),
        (({**START, "rate": "nan"},), "start: rate:"),
        (({**START, "format": "mp3"},), "start: format:"),
        (({**START, "model": "whisper-1"},), "there is no model 'whisper-1'"),
        (({**START, "model": "deaf"},), "it cannot stream"),
        ((START, START), 'then "stop"'),
        (({**START, "format": "float32"}, NAN), "NaN or infinity"),
        ((START, bytes(2 * RATE * 6), bytes(2 * RATE * 6)), "12.0 s, more than 10 s"),
    ],
)
def test_wrong_messages_get_one_error(client, messages, message):
    error, code = refused(client, *messages)

    assert message in error["message"] and code == 1008
    assert error["type"] == "invalid_request_error"
    assert talk(client, START, [int16(levels(1))])[1].text == "one"


def test_too_many_streams(client):
    with client.websocket_connect(STREAM) as first:
        first.send_json(START)
        assert first.receive_json()["type"] == "ready"
        error, code = refused(client, START)
        assert error["code"] == "busy" and code == 1013
    assert talk(client, START, [int16(levels(1))])[1].text == "one"


def test_a_client_that_says_nothing_loses_its_place(client):
    state_of(client.app).limits = Limits(idle_seconds=0.05)
    error, code = refused(client, START)

    assert error["code"] == "idle" and code == 1008
    assert client.get("/health").json()["streams"]["now"] == 0


def test_an_unexpected_error_has_no_details(client, model, monkeypatch):
    def fail(samples):
        raise RuntimeError("/secret/folder")

    monkeypatch.setattr(model, "_found", fail)
    error, code = refused(client, START, int16(levels(1)))

    assert "secret" not in error["message"] and code == 1011


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"host": "evil.example"}, {"origin": "null"}],
)
def test_pages_of_other_sites_get_no_stream(client, headers):
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(STREAM, headers=headers),
    ):
        pass
