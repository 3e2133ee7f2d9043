"""One thread that decodes, and the places of those who wait for it."""

import asyncio
import contextlib
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
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
        seconds: Of :meth:`run_steps`, on average, without waiting.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        # Heap of (is it not urgent, its number, result, job).
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
        return await self._run(job, not urgent, next(self._count))

    async def run_steps(self, steps: Generator[None, None, T]) -> T:
        """Return the value of a generator, each step of which is run in the thread.

        Between two steps, urgent jobs are run; other jobs wait. If the calling task is
        cancelled, no further step is run. The generator is closed in any case.
        """
        number, seconds = next(self._count), 0.0

        def step() -> StopIteration | None:
            nonlocal seconds
            started = time.monotonic()
            try:
                next(steps)
            except StopIteration as stop:
                return stop
            finally:
                seconds += time.monotonic() - started
            return None

        try:
            while (stop := await self._run(step, True, number)) is None:
                pass
        finally:
            steps.close()
        self.seconds += (seconds - self.seconds) / 4
        return stop.value  # type: ignore[no-any-return]

    async def _run(self, job: Callable[[], T], later: bool, number: int) -> T:
        future: Future[T] = Future()
        with self._changed:
            heapq.heappush(self._jobs, (later, number, future, job))
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
                *_, future, job = heapq.heappop(self._jobs)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = job()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
