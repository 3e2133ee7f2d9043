"""Batches of utterances of similar length.

This module needs neither torch nor ESPnet, so that exported models use it as well.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def in_batches(
    utterances: Sequence[Any], size: int, work: Callable[[list[Any]], Sequence[T]]
) -> list[T]:
    """Process utterances in batches of similar length.

    Args:
        utterances: Each has a length.
        size: Most utterances of a batch.
        work: Returns one result for each utterance of a batch.

    Returns:
        The results, in the order of the utterances.

    Example:
        >>> in_batches(["ccc", "a", "bb"], 2, lambda batch: [str(batch)] * len(batch))
        ["['ccc']", "['a', 'bb']", "['a', 'bb']"]
    """
    order = sorted(range(len(utterances)), key=lambda index: len(utterances[index]))
    results: dict[int, T] = {}
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        found = work([utterances[index] for index in chosen])
        results.update(zip(chosen, found, strict=True))
    return [results[index] for index in range(len(utterances))]
