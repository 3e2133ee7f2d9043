"""One thread that decodes, and the places of those who wait for it."""

import asyncio
import contextlib
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from espnet_cif_hkd.server.errors import ApiError

T = TypeVar("T")


class Places:
    """A number of places, of which each request takes one.

    Args:
        number: How many there are.
        what: What the requests are, for the message.
    """

    def __init__(self, number: int, what: str) -> None:
        self.number = number
        self.taken = 0
        self._what = what

    @contextlib.contextmanager
    def take(self, seconds: float = 1.0) -> Iterator[None]:
        """Take a place within a ``with`` statement.

        Args:
            seconds: Until a place is expected to be free.

        Raises:
            ApiError: No place is free.
        """
        if self.taken >= self.number:
            raise ApiError(
                503,
                f"the server is busy with {self.taken} {self._what}: try again later",
                "busy",
                headers={"retry-after": str(max(1, math.ceil(seconds)))},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Worker:
    """A thread that runs one job after another, urgent ones first.

    Attributes:
        seconds: Of a job that is not urgent, on average.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._jobs: list[tuple[bool, int, Future[Any], Callable[[], Any]]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="decode", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present job; cancel the others."""
        with self._changed:
            self._stopped = True
            for *_, future, _job in self._jobs:
                future.cancel()
            self._changed.notify()

    async def run(self, job: Callable[[], T], urgent: bool = False) -> T:
        """Return the result of ``job``, run in the thread.

        If the calling task is cancelled, a job that waits is removed from the queue; a
        job that runs is awaited first.

        Args:
            job: A function without arguments.
            urgent: Run it before the jobs that are not urgent.
        """
        future: Future[T] = Future()
        with self._changed:
            entry = not urgent, next(self._count), future, job
            heapq.heappush(self._jobs, entry)
            self._changed.notify()
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            if not future.cancel():
                with contextlib.suppress(Exception):
                    await asyncio.wrap_future(future)
            raise

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._stopped)
                if self._stopped:
                    return
                later, _, future, job = heapq.heappop(self._jobs)
            if not future.set_running_or_notify_cancel():
                continue
            started = time.monotonic()
            try:
                result = job()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            if later:
                self.seconds += (time.monotonic() - started - self.seconds) / 4
