"""What every request must meet: host, origin, size. Headers of every response."""

import asyncio
import contextlib
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from espnet_cif_hkd.server.errors import ApiError

# A client that is still sending reads the response only afterwards, or never.
_DRAIN_SECONDS = 2.0
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; img-src 'self' data:; media-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware that refuses requests of foreign pages and large bodies.

    A page of another site can make a browser send requests to this machine, also under
    a name that it points here (DNS rebinding). So a request needs a ``Host`` that is an
    address, ``localhost`` or one of ``hosts``, and an ``Origin``, if there is one, of
    the same host and port. There are no CORS headers: other sites cannot read answers.

    Args:
        app: The application.
        hosts: Names of this server, without ports.
        most_bytes: Largest body.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str] = (), most_bytes: int = 10**8
    ) -> None:
        self.app = app
        self.hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}
        self.most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        error = self._refusal(Headers(scope=scope))
        if scope["type"] == "websocket":
            if error is None:
                await self.app(scope, receive, send)
            else:  # before the handshake: the client gets status 403
                await send({"type": "websocket.close", "code": 1008})
            return
        body = _Body(receive, self.most_bytes)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.drain()
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if error is None:
            await self.app(scope, body.receive, sent)
        else:
            await error.response()(scope, body.receive, sent)

    def _refusal(self, headers: Headers) -> ApiError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            return ApiError(
                403,
                "this server does not answer under the name in the Host header: use "
                "its address, or start it with --allow_host NAME",
                "host_not_allowed",
            )
        if origin is not None and _place(origin) != host.lower():
            return ApiError(
                403, "pages of other sites may not use this server", "origin_not_ours"
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.most_bytes:
            return too_large(self.most_bytes)
        return None

    def _is_ours(self, host: str) -> bool:
        if "@" in host:
            return False
        with contextlib.suppress(ValueError):
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            if name in self.hosts:
                return True
            # Nobody can point an address elsewhere.
            return bool(ipaddress.ip_address(name))
        return False


def _place(origin: str) -> str | None:
    with contextlib.suppress(ValueError):
        return urlsplit(origin).netloc.lower()
    return None


def too_large(most_bytes: int) -> ApiError:
    """Return the error for a body that is too large."""
    return ApiError(
        413,
        f"the upload is larger than {most_bytes / 1e6:g} MB: send shorter audio, or "
        "FLAC instead of WAV",
        "file_too_large",
        param="file",
    )


class _Body:
    """The body of a request, counted while it is read."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive = receive
        self._most = most_bytes
        self._read = 0
        self._complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._complete = not message.get("more_body", False)
        self._read += len(message.get("body", b""))
        if self._read > self._most:
            raise too_large(self._most)
        return message

    async def drain(self) -> None:
        """Discard what the client is still sending, for a short time."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._discard(), _DRAIN_SECONDS)

    async def _discard(self) -> None:
        while not self._complete:
            message = await self._receive()
            self._complete = not message.get("more_body", False)
