"""The application: routes, state and guard."""

import contextlib
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

from fastapi import APIRouter, FastAPI, Request

import espnet_cif_hkd
from espnet_cif_hkd.server import page, stream, transcriptions
from espnet_cif_hkd.server.errors import add_handlers
from espnet_cif_hkd.server.guard import Guard
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Models
from espnet_cif_hkd.server.state import State, state_of

_router = APIRouter()


def create_app(
    models: Models, limits: Limits | None = None, hosts: Collection[str] = ()
) -> FastAPI:
    """Return the application.

    Args:
        models: Loaded models.
        limits: Of each client.
        hosts: Names under which the server is reached, besides addresses and
            ``localhost``.

    Example:
        >>> app = create_app(Models({"mine": Recognizer("exp/asr_x")}, {}))
        >>> uvicorn.run(app, host="127.0.0.1", port=8000)
    """
    limits = limits or Limits()

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        worker = state_of(app).worker
        worker.start()
        try:
            yield
        finally:
            worker.stop()

    # FastAPI's pages of documentation load scripts from other sites.
    app = FastAPI(
        title="espnet-cif-hkd",
        version=espnet_cif_hkd.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=running,
    )
    app.state.shared = State(models, limits, int(time.time()))
    for one in (_router, transcriptions.router, stream.router, page.router):
        app.include_router(one)
    add_handlers(app)
    app.add_middleware(Guard, hosts=hosts, most_bytes=limits.bytes)
    return app


@_router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Say that the server answers, and how busy it is."""
    state = state_of(request.app)
    return {
        "status": "ok",
        "version": espnet_cif_hkd.__version__,
        "models": list(state.models),
        "requests": {"now": state.places.taken, "most": state.places.number},
        "streams": {"now": state.streams.taken, "most": state.streams.number},
    }


@_router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the models."""
    state = state_of(request.app)
    return {
        "object": "list",
        "data": [_described(state, name) for name in state.models],
    }


@_router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """Describe a model; without a name list all."""
    if not name:
        return await models(request)
    state = state_of(request.app)
    state.models.find(name)
    return _described(state, name)


def _described(state: State, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": state.created,
        "owned_by": "espnet-cif-hkd",
        "sampling_rate": state.models[name].sampling_rate,
    }
