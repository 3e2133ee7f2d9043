"""Dated lines on the terminal, and the progress of long tasks."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def log(message: str) -> None:
    """Print ``message`` after the date, as ``asr.sh`` does."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
    print(f"{stamp} {message}", file=sys.__stdout__, flush=True)


def progress(
    items: Iterable[T], total: int, what: str, every: float = 10.0
) -> Iterator[T]:
    """Yield ``items`` and log how many are done every ``every`` seconds.

    Args:
        items: the items.
        total: number of items.
        what: beginning of the line, such as ``stage 3: data/train``.
        every: seconds between two lines; nothing is printed before the first.
    """
    begun = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= every:
            last = now
            left = (now - begun) / max(done, 1) * (total - done)
            log(f"{what}: {done} of {total}, about {left:.0f} s left")
        yield item
