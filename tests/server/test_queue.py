"""Several clients at once: the queue, its end, and clients that hang up."""

import asyncio
import contextlib
import json

import pytest
from level_recogniser import LevelRecogniser, audio_file, levels

from espnet_cif_hkd.server.app import create_app
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Models
from espnet_cif_hkd.server.state import state_of

HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
LONG = audio_file(levels(*range(1, 9)))


@pytest.fixture(autouse=True)
def short_drain(monkeypatch):
    """Clients of these tests send nothing after a refusal."""
    monkeypatch.setattr("espnet_cif_hkd.server.guard._DRAIN_SECONDS", 0.05)


def body(audio):
    return HEAD + audio + b"\r\n--x--\r\n"


class Client:
    """One request to the application, without a socket."""

    def __init__(self, app):
        self._incoming = asyncio.Queue()
        self.sent = []
        kind = "multipart/form-data; boundary=x"
        headers = {"host": "localhost", "content-type": kind}
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/audio/transcriptions",
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }
        self.task = asyncio.ensure_future(app(scope, self._incoming.get, self._send))

    async def _send(self, message):
        self.sent.append(message)

    def upload(self, data, more=False):
        self._incoming.put_nowait(
            {"type": "http.request", "body": data, "more_body": more}
        )

    def hang_up(self):
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def answer(self):
        await asyncio.wait_for(self.task, 20)
        start, *rest = self.sent
        content = b"".join(one.get("body", b"") for one in rest)
        return start["status"], dict(start["headers"]), json.loads(content)


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not happen")


class Server:
    """An application whose worker runs, with a fake model."""

    def __init__(self, **limits):
        self.model = LevelRecogniser()
        self.limits = Limits(**{"places": 2, **limits})
        self.app = create_app(Models({"levels": self.model}, {}), self.limits)
        self.state = state_of(self.app)

    def client(self):
        return Client(self.app)

    @contextlib.asynccontextmanager
    async def running(self):
        async with self.app.router.lifespan_context(self.app):
            yield self
        await until(lambda: self.state.places.taken == 0)


def run(scenario, **limits):
    async def with_server():
        async with Server(**limits).running() as server:
            await scenario(server)

    asyncio.run(with_server())


def test_requests_at_once_are_answered_one_after_the_other():
    async def scenario(server):
        clients = [server.client() for _ in range(2)]
        for client, level in zip(clients, (3, 7)):
            client.upload(body(audio_file(levels(level))))
        answers = [await client.answer() for client in clients]
        assert [content["text"] for *_, content in answers] == ["three", "seven"]
        assert server.model.most_at_once == 1

    run(scenario)


def test_a_full_queue_says_when_to_come_back():
    async def scenario(server):
        server.model.go.clear()
        waiting = [server.client() for _ in range(2)]
        for client in waiting:
            client.upload(body(audio_file(levels(1))))
        await until(lambda: server.state.places.taken == 2 and server.model.started)
        refused = server.client()
        refused.upload(body(LONG))
        status, headers, content = await refused.answer()
        assert status == 503 and int(headers[b"retry-after"]) >= 1
        assert content["error"]["code"] == "busy"
        server.model.go.set()
        for client in waiting:
            assert (await client.answer())[0] == 200

    run(scenario)


@pytest.mark.parametrize("when", ["upload", "queue"])
def test_a_client_that_hangs_up_frees_its_place_at_once(when):
    async def scenario(server):
        server.model.go.clear()
        first, gone = server.client(), server.client()
        first.upload(body(audio_file(levels(1))))
        await until(lambda: server.model.started == 1)
        gone.upload(body(audio_file(levels(2))), more=when == "upload")
        await until(lambda: server.state.places.taken == 2)
        await asyncio.sleep(0.05)
        gone.hang_up()
        await until(lambda: server.state.places.taken == 1)
        third = server.client()
        third.upload(body(audio_file(levels(3))))
        server.model.go.set()
        assert (await first.answer())[2]["text"] == "one"
        assert (await third.answer())[2]["text"] == "three"
        assert server.model.started == 2

    run(scenario)


def test_a_client_that_hangs_up_stops_long_audio_after_the_passage():
    async def scenario(server):
        server.model.go.clear()
        gone = server.client()
        gone.upload(body(LONG))
        await until(lambda: server.model.long_started == 1)
        gone.hang_up()
        await asyncio.sleep(0.05)
        server.model.go.set()
        await until(lambda: server.state.places.taken == 0)
        assert server.model.passages <= 1

    run(scenario, long_above=1)


def test_streams_go_on_while_long_audio_is_recognised():
    async def scenario(server):
        server.model.go.clear()
        long = server.client()
        long.upload(body(LONG))
        await until(lambda: server.model.long_started == 1)
        passages = server.state.worker.run(lambda: server.model.passages, urgent=True)
        passages = asyncio.ensure_future(passages)
        await asyncio.sleep(0.05)
        server.model.go.set()
        assert await passages == 1
        assert (await long.answer())[0] == 200 and server.model.passages == 2

    run(scenario, long_above=1)


def test_a_slow_upload_loses_its_place():
    async def scenario(server):
        client = server.client()
        client.upload(HEAD, more=True)
        client_answer = asyncio.ensure_future(client.answer())
        await until(lambda: server.state.places.taken == 0 and client.task.done())
        status, _, content = await client_answer
        assert status == 408 and content["error"]["code"] == "upload_timeout"

    run(scenario, upload_seconds=0.05)


def test_the_size_is_checked_while_the_upload_is_read():
    async def scenario(server):
        client = server.client()
        client.upload(HEAD + bytes(3000), more=True)
        # Nothing further is sent: the refusal does not wait for the rest for long.
        status, _, content = await client.answer()
        assert status == 413 and content["error"]["code"] == "file_too_large"

    run(scenario, megabytes=0.002)


def test_uploads_leave_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def scenario(server):
        for audio in (audio_file(levels(1)), b"no audio"):
            client = server.client()
            client.upload(body(audio))
            await client.answer()
        assert list(tmp_path.iterdir()) == []

    run(scenario)
