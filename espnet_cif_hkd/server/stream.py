"""The websocket ``/v1/stream``: audio in pieces, tokens as soon as they are found.

The client sends ``{"type": "start", "rate": 16000, "format": "int16"}``, then binary
messages of any length with PCM, one channel, little-endian, then ``{"type": "stop"}``.
The server sends ``ready``; ``partial`` with the new tokens as a ``Recognition``,
whenever there are some; ``final`` with the complete ``Recognition``; or ``error`` and
nothing else.
"""

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, ValidationError

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.server.audio import RATES, check_length
from espnet_cif_hkd.server.errors import ApiError, internal_error
from espnet_cif_hkd.server.recognisers import FloatArray, Stream
from espnet_cif_hkd.server.state import State, state_of

router = APIRouter()
# Close codes of websockets: wrong message, internal error, try again later.
_POLICY, _INTERNAL, _LATER = 1008, 1011, 1013
# Status codes; those of an HTTP answer, for the close code.
_BUSY = 503


class Start(BaseModel):
    """The first message of a client."""

    type: Literal["start"]
    rate: int = Field(ge=RATES.start, lt=RATES.stop)
    format: Literal["int16", "float32"] = "int16"
    model: str = ""


class Pcm:
    """Bytes that become samples at the rate of the model.

    Args:
        form: ``int16`` or ``float32``.
        rate: Of the bytes, in Hz.
        wanted: Of the samples, in Hz.
    """

    def __init__(self, form: str, rate: int, wanted: int) -> None:
        self._type = np.dtype(form).newbyteorder("<")
        self._rest = b""
        self._rate = rate
        self._resampler: Any = None
        self.read = 0
        if rate != wanted:
            import soxr

            self._resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32")

    @property
    def seconds(self) -> float:
        """Length of the audio so far."""
        return self.read / self._rate

    @property
    def left(self) -> int:
        """Number of bytes that are the beginning of a sample."""
        return len(self._rest)

    def samples(self, data: bytes, last: bool = False) -> FloatArray:
        """Return the samples ``(S,)`` that the next bytes complete.

        Raises:
            ApiError: They contain NaN or infinity.
        """
        data = self._rest + data
        n = len(data) // self._type.itemsize
        self._rest = data[n * self._type.itemsize :]
        self.read += n
        samples = np.frombuffer(data, self._type, n).astype(np.float32)
        if self._type.kind == "i":
            samples /= 2**15
        elif not np.isfinite(samples).all():
            raise ApiError(400, "the audio contains NaN or infinity", "invalid_audio")
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        return samples


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Recognise audio while it arrives."""
    await socket.accept()
    state = state_of(socket.app)
    with contextlib.suppress(WebSocketDisconnect):
        async with _errors(socket, state):
            with state.streams.take():
                await _serve(socket, state)
        await socket.close()


@contextlib.asynccontextmanager
async def _errors(socket: WebSocket, state: State) -> AsyncIterator[None]:
    """Send an error that ends the stream."""
    code = _POLICY
    try:
        yield
        return
    except WebSocketDisconnect:
        raise
    except ApiError as error:
        failed = error
        code = _LATER if error.status == _BUSY else _POLICY
    except UserError as error:
        message = state.models.public(str(error))
        failed = ApiError(400, message, "invalid_value")
    except Exception:
        logging.exception("a stream failed")
        failed, code = internal_error(), _INTERNAL
    await socket.send_json({"type": "error", "error": failed.fields()})
    await socket.close(code)
    raise WebSocketDisconnect(code)


async def _serve(socket: WebSocket, state: State) -> None:
    start = _start(await _message(socket, state))
    model = state.models.find(start.model)
    open_stream = getattr(model, "stream", None)
    if open_stream is None:
        raise ApiError(400, "this model cannot recognise streams", "cannot_stream")
    one: Stream = await state.worker.run(open_stream, urgent=True)
    pcm = Pcm(start.format, start.rate, model.sampling_rate)
    await socket.send_json({"type": "ready", "sampling_rate": model.sampling_rate})
    n_sent = 0
    while True:
        message = await _message(socket, state)
        if isinstance(message, str):
            break
        samples = pcm.samples(message)
        check_length(pcm.seconds, state.limits)
        if len(samples):
            accept = functools.partial(one.accept, samples)
            found = await state.worker.run(accept, urgent=True)
            if len(found.tokens) > n_sent:
                partial = _new(found, n_sent).to_dict()
                await socket.send_json({"type": "partial", "recognition": partial})
                n_sent = len(found.tokens)
    if _json(message).get("type") != "stop":
        raise _unexpected('after "start" send audio in binary messages, then "stop"')
    rest = pcm.samples(b"", last=True)
    if len(rest):
        await state.worker.run(functools.partial(one.accept, rest), urgent=True)
    final = await state.worker.run(one.finish, urgent=True)
    notes = []
    if pcm.left:
        notes = [f"the last {pcm.left} bytes are no complete sample: left out"]
    await socket.send_json(
        {"type": "final", "recognition": final.to_dict(), "notes": notes}
    )


async def _message(socket: WebSocket, state: State) -> str | bytes:
    """Return the next text or binary message.

    Raises:
        ApiError: The client sends nothing for too long.
        WebSocketDisconnect: It has hung up.
    """
    try:
        message = await asyncio.wait_for(socket.receive(), state.limits.idle_seconds)
    except asyncio.TimeoutError:
        raise ApiError(
            408, f"no message for {state.limits.idle_seconds:g} s", "idle"
        ) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    data = message.get("bytes")
    return message.get("text") or "" if data is None else bytes(data)


def _start(message: str | bytes) -> Start:
    if isinstance(message, bytes):
        raise _unexpected('send {"type": "start", "rate": …} before the audio')
    try:
        return Start.model_validate(_json(message))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _unexpected(f"start: {where}: {first['msg']}") from None


def _json(message: str | bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        fields = json.loads(message)
        if isinstance(fields, dict):
            return fields
    raise _unexpected("a text message must be a JSON object")


def _unexpected(message: str) -> ApiError:
    return ApiError(400, message, "invalid_message")


def _new(found: Recognition, n_sent: int) -> Recognition:
    """Return the tokens after the first ``n_sent`` as a result of their own."""
    tokens = found.tokens[n_sent:]
    text = "".join(token.text for token in tokens)
    return Recognition(text=text, tokens=tokens, duration=found.duration)
