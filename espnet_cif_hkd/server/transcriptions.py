"""``POST /v1/audio/transcriptions``, as OpenAI defines it, with additions."""

import asyncio
import math
import re
import tempfile
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from espnet_cif_hkd.inference.writers import write
from espnet_cif_hkd.inference.writers.verbose_json import verbose
from espnet_cif_hkd.server.audio import keep
from espnet_cif_hkd.server.decoding import Decoded, decode
from espnet_cif_hkd.server.errors import ApiError
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Recogniser
from espnet_cif_hkd.server.state import State, state_of

T = TypeVar("T")
router = APIRouter()
_LISTS = ("timestamp_granularities", "include")
_MEDIA = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}


class Fields(BaseModel):
    """The fields of the form but for the file. Others have no effect."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    language: str = Field("", max_length=32)
    prompt: str = ""
    temperature: float = Field(0.0, ge=0.0, le=1.0)
    timestamp_granularities: list[Literal["word", "segment"]] = []
    include: list[Literal["alphas", "txt", "srt", "vtt", "tsv", "ctm", "textgrid"]] = []
    stream: bool = False

    def ignored(self) -> list[str]:
        """Return the names of the fields that have no effect on the answer."""
        names = list(self.model_extra or ())
        names += ["prompt"] * bool(self.prompt)
        names += ["temperature"] * bool(self.temperature)
        return [name for name in names if re.fullmatch(r"\w{1,64}", name, re.ASCII)]


def fields_of(form: FormData) -> Fields:
    """Check the fields of a form.

    Raises:
        ApiError: A field is wrong.
    """
    given: dict[str, Any] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]")
        if name in _LISTS:
            given.setdefault(name, []).append(value)
        elif name != "file":
            given[name] = value
    try:
        fields = Fields.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        raise _wrong(f"{param}: {first['msg']}", param) from None
    if fields.stream:
        raise _wrong(
            "stream: this server sends the complete result only; for partial results "
            "use the websocket /v1/stream",
            "stream",
        )
    for name in _LISTS:
        if getattr(fields, name) and fields.response_format != "verbose_json":
            raise _wrong(f"{name} needs response_format=verbose_json", name)
    return fields


def _wrong(message: str, param: str | None) -> ApiError:
    return ApiError(400, message, "invalid_value", param=param)


@router.post(
    "/v1/audio/transcriptions",
    openapi_extra={
        "requestBody": {
            "content": {"multipart/form-data": {"schema": Fields.model_json_schema()}}
        }
    },
)
async def transcribe(request: Request) -> Response:
    """Recognise the speech in a file."""
    state = state_of(request.app)
    with state.places.take(state.worker.seconds * state.places.taken):
        fields, file = await _form(request, state)
        model = state.models.find(fields.model)
        with tempfile.TemporaryDirectory(prefix="espnet_cif_serve.") as folder:
            path = await asyncio.to_thread(keep, file.file, Path(folder), state.limits)
            await file.close()
            try:
                steps = _steps(model, path, state.limits, fields)
                running = state.worker.run_steps(steps)
                answer = await _while_connected(request, running)
            except ApiError as error:
                error.message = state.models.public(error.message)
                raise
    if ignored := fields.ignored():
        answer.headers["x-ignored-fields"] = ", ".join(ignored)
    return answer


async def _form(request: Request, state: State) -> tuple[Fields, UploadFile]:
    try:
        form = await asyncio.wait_for(
            request.form(max_files=1, max_fields=64, max_part_size=2**16),
            state.limits.upload_seconds,
        )
    except asyncio.TimeoutError:
        raise ApiError(408, "the upload takes too long", "upload_timeout") from None
    except ClientDisconnect:
        raise _gone() from None
    fields = fields_of(form)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise _wrong("file: send the audio as a file in multipart/form-data", "file")
    return fields, file


async def _while_connected(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Return an answer; cancel it if the client hangs up before.

    Raises:
        ApiError: The client has hung up; nobody will read it.
    """
    task = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise _gone()
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def _gone() -> ApiError:
    return ApiError(499, "the client has hung up", "client_disconnected")


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _steps(
    model: Recogniser, path: Path, limits: Limits, fields: Fields
) -> Generator[None, None, Response]:
    decoded = yield from decode(model, path, limits, "alphas" in fields.include)
    return _answer(decoded, fields)


def _answer(decoded: Decoded, fields: Fields) -> Response:
    found, form = decoded.found, fields.response_format
    if form in _MEDIA:
        text = f"{found.text}\n" if form == "text" else write(found, "upload", form)
        return PlainTextResponse(text, media_type=_MEDIA[form])
    usage = {"type": "duration", "seconds": math.ceil(found.duration)}
    if form == "json":
        return JSONResponse({"text": found.text, "usage": usage})
    content = verbose(found, language=fields.language or "unknown")
    for name in ("word", "segment"):
        if name not in (fields.timestamp_granularities or ["segment"]):
            del content[f"{name}s"]
    content |= {"usage": usage, "notes": decoded.notes}
    outputs = [name for name in fields.include if name != "alphas"]
    if outputs:
        content["outputs"] = {name: write(found, "upload", name) for name in outputs}
    if "alphas" in fields.include:
        content["alphas"] = decoded.alphas
    return JSONResponse(content)
