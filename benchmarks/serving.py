"""The server against the recogniser alone: latency of a file, two clients at once.

    python3 benchmarks/serving.py --model exp/asr_x talks/*.flac

The same files are recognised directly (read, recognised, written as JSON), by one
client and by two clients at once. All take turns, ``--repeats`` times, in one process
with the server in a thread, so the ratio is the cost of HTTP, queue and upload.
"""

import argparse
import itertools
import json
import logging
import statistics
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from espnet_cif_hkd.cli.serve import listen
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.server.app import create_app
from espnet_cif_hkd.server.decoding import decode
from espnet_cif_hkd.server.limits import Limits
from espnet_cif_hkd.server.recognisers import Models

Ask = Callable[[Path], str]


def directly(model: Recognizer) -> Ask:
    """Return a function that recognises a file without the server."""

    def ask(path: Path) -> str:
        steps = decode(model, path, Limits(), with_alphas=False)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return str(json.dumps({"text": stop.value.found.text}))

    return ask


def by_http(address: str) -> Ask:
    """Return a function that sends a file to the server."""

    def ask(path: Path) -> str:
        mark = uuid.uuid4().hex
        head = 'Content-Disposition: form-data; name="file"; filename="a"'
        body = f"--{mark}\r\n{head}\r\n\r\n".encode() + path.read_bytes()
        request = urllib.request.Request(
            f"{address}/v1/audio/transcriptions",
            body + f"\r\n--{mark}--\r\n".encode(),
            {"Content-Type": f"multipart/form-data; boundary={mark}"},
        )
        with urllib.request.urlopen(request) as answer:
            return str(answer.read().decode())

    return ask


def timed(ask: Ask, paths: Iterable[Path], clients: int) -> tuple[list[float], float]:
    """Return the seconds of each file, and of all."""

    def one(path: Path) -> float:
        started = time.perf_counter()
        ask(path)
        return time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        each = list(pool.map(one, paths))
    return each, time.perf_counter() - started


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("audio", type=Path, nargs="+")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    model = Recognizer(args.model)
    with listen("127.0.0.1", 0) as bound:
        app = create_app(Models({"model": model}, {}), Limits(places=64))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        http = by_http(f"http://127.0.0.1:{bound.getsockname()[1]}")
        ways = {
            "directly": (directly(model), 1),
            "one client": (http, 1),
            "two clients": (http, 2),
        }
        for ask in (ways["directly"][0], http):  # warm up
            ask(args.audio[0])
        each: dict[str, list[float]] = {name: [] for name in ways}
        total = dict.fromkeys(ways, 0.0)
        for _, (name, way) in itertools.product(range(args.repeats), ways.items()):
            seconds, all_of_them = timed(way[0], args.audio, way[1])
            each[name] += seconds
            total[name] += all_of_them
        server.should_exit = True
        thread.join()
    print("| | a file, median ms | / directly | files a second |\n|---|---|---|---|")
    for name in ways:
        median = statistics.median(each[name])
        ratio = median / statistics.median(each["directly"])
        rate = len(each[name]) / total[name]
        print(f"| {name} | {1000 * median:.1f} | {ratio:.3f} | {rate:.2f} |")


if __name__ == "__main__":
    main()
