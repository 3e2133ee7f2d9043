"""What all requests share."""

from dataclasses import dataclass, field
from typing import cast

from fastapi import FastAPI

from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Models
from espnet_cif_hkd.server.worker import Places, Worker


@dataclass
class State:
    """Models, limits, and the thread that decodes.

    Attributes:
        models: Used by the worker's thread only.
        limits: Of each client.
        created: When the server was started, in seconds since 1970.
        worker: The thread.
        places: Of files.
        streams: Of streams.
    """

    models: Models
    limits: Limits
    created: int
    worker: Worker = field(init=False)
    places: Places = field(init=False)
    streams: Places = field(init=False)

    def __post_init__(self) -> None:
        self.worker = Worker()
        self.places = Places(self.limits.places, "requests")
        self.streams = Places(self.limits.streams, "streams")


def state_of(app: FastAPI) -> State:
    """Return what the requests of an application share."""
    return cast(State, app.state.shared)
