"""Serve models over HTTP, with a page in the browser.

The interface is OpenAI's (``/v1/audio/transcriptions``), with a websocket for streams
(``/v1/stream``) and a page (``/``). See ``docs/serving.md``.
"""

import argparse
import importlib.util
import logging
import math
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_cif_hkd.cli.command import command_parser
from espnet_cif_hkd.cli.result_options import device_of, guarded, quiet_libraries
from espnet_cif_hkd.cli.search_options import add_search, check_search, search_of
from espnet_cif_hkd.errors import UserError

if TYPE_CHECKING:
    from espnet_cif_hkd.server.recognisers import Models, Recogniser

_NEEDED = {
    "fastapi": "fastapi",
    "python_multipart": "python-multipart",
    "soxr": "soxr",
    "uvicorn": "uvicorn",
    "websockets": "websockets",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MOST_MESSAGE = 2**20
# Seconds that clients have at the end.
_GRACE = 5


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    add = parser.add_argument
    add(
        "--model",
        action="append",
        required=True,
        metavar="[NAME=]DIR|ZIP|TAG",
        help="folder of an experiment, packed model, or tag of a shared model; NAME is "
        "what clients call it (default: the last part); repeat for more models",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="address (default: %(default)s)",
    )
    add("--port", type=int, default=8000, help="0: any free one (default: %(default)s)")
    add(
        "--allow_host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer under this name, too; addresses and localhost always work",
    )
    add("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: cpu)")
    add_search(parser)
    add("--verbose", action="store_true", help="show what ESPnet logs")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max_mb", type=float, default=100.0, help="of an upload")
    limits.add_argument("--max_seconds", type=float, default=7200.0, help="of audio")
    limits.add_argument("--queue", type=int, default=16, help="requests at a time")
    limits.add_argument("--streams", type=int, default=4, help="streams at a time")
    return parser


def names_of(models: Sequence[str]) -> dict[str, str]:
    """Return what each model is called, and where it is.

    Args:
        models: ``NAME=PLACE`` or ``PLACE``.

    Raises:
        UserError: Two models have the same name.
    """
    places: dict[str, str] = {}
    for given in models:
        before, separator, after = given.partition("=")
        named = bool(separator and before) and not Path(given).exists()
        place = after if named else given
        path = Path(place)
        last = path.resolve() if path.exists() else path
        name = before if named else (last.stem if path.is_file() else last.name)
        if not name or name in places:
            raise UserError(
                f"--model {given}: name it differently from the others, with "
                f"--model NAME={place}"
            )
        places[name] = place
    return places


def load(places: dict[str, str], build: Callable[[str], "Recogniser"]) -> "Models":
    """Load models.

    Args:
        places: Name -> folder, archive or tag.
        build: Loads one.
    """
    from espnet_cif_hkd.server.recognisers import Models, Recogniser

    loaded: dict[str, Recogniser] = {}
    private: dict[str, str] = {}
    for name, place in places.items():
        say(f"loading {place}")
        loaded[name] = build(place)
        if Path(place).exists():
            private |= {str(Path(place).resolve()): name, place: name}
    return Models(loaded, private)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound.

    Raises:
        UserError: The address or port cannot be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(found[4][:2], family=found[0])
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen on {host} port {port} ({reason}): choose others with "
            "--host and --port; --port 0 takes a free one"
        ) from None


def check_packages() -> None:
    """Check that what a server needs is installed.

    Raises:
        UserError: Something is missing.
    """
    missing = [
        package
        for module, package in _NEEDED.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise UserError(
            f"the server needs {', '.join(missing)}; run: python3 -m pip install "
            "'espnet-cif-hkd[serve]'"
        )


def say(message: str) -> None:
    """Write a line."""
    print(message, file=sys.__stderr__, flush=True)


def serve(args: argparse.Namespace) -> int:
    """Load the models and answer until interrupted; return the exit code.

    Raises:
        UserError: A package is missing, an address cannot be used, or a model cannot be
            loaded.
    """
    check_packages()
    check_search(args)
    for name in ("max_mb", "max_seconds", "queue", "streams"):
        least = 0 if name == "streams" else 1
        if not least <= getattr(args, name) < math.inf:
            raise UserError(
                f"--{name} {getattr(args, name)}: give a number from {least} on"
            )
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: give a number from 0 to 65535")
    places = names_of(args.model)

    import uvicorn

    from espnet_cif_hkd.server.app import create_app
    from espnet_cif_hkd.server.limits import Limits

    with listen(args.host, args.port) as bound:
        only = args.model[0] if len(args.model) == 1 else None
        with quiet_libraries(args.verbose, only):
            models = load(places, lambda place: recogniser(place, args))
        limits = Limits(
            megabytes=args.max_mb,
            seconds=args.max_seconds,
            places=args.queue,
            streams=args.streams,
        )
        hosts = [*args.allow_host, args.host]
        config = uvicorn.Config(
            create_app(models, limits, hosts),
            log_level="warning",
            ws="websockets-sansio",
            ws_max_size=_MOST_MESSAGE,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        if args.host not in _LOOPBACK:
            logging.warning(
                "--host %s: everyone who reaches this address can use the server; it "
                "has neither passwords nor encryption",
                args.host,
            )
        host = f"[{args.host}]" if ":" in args.host else args.host
        port = bound.getsockname()[1]
        say(f"http://{host}:{port} serves {', '.join(models)}; Ctrl-C ends it")
        uvicorn.Server(config).run(sockets=[bound])
    return 0


def recogniser(place: str, args: argparse.Namespace) -> "Recogniser":
    """Load a model with the options of the command line."""
    from espnet_cif_hkd.inference.recognizer import Recognizer

    return Recognizer(place, device=device_of(args.device), **search_of(args))


def main(cmd: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return guarded(serve, get_parser().parse_args(cmd))


if __name__ == "__main__":
    sys.exit(main())
