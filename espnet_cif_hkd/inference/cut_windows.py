"""Long audio for a recogniser of utterances: passages between pauses of its own result.

A window is recognised as an utterance, which shows the pauses between words. The window
ends in the last one of its second half, where the next window begins, and what is
between two pauses is recognised again as an utterance, as the decoder has learned them.
So no word is cut that has a pause beside it, and most audio is read twice. The module
needs neither torch nor ESPnet; :mod:`espnet_cif_hkd.inference.long_audio`, which does,
divides encoder frames instead and reads everything once.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.assemble import of_tokens
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.io.atomic import write_text

# Seconds: of a window; of silence between words that is preferred; before the end of a
# window, where a word may begin that is not complete.
WINDOW, PAUSE, CONTEXT = 24.0, 0.4, 1.0
# Samples between two times in seconds.
Read = Callable[[float, float], Any]


def recognise_windows(
    recognise: Callable[[list[Any]], Sequence[Recognition]],
    read: Read,
    duration: float,
    window: float = WINDOW,
    state: Path | None = None,
) -> Iterator[Recognition]:
    """Recognise long audio with the memory of one window.

    Args:
        recognise: Returns the results of a list of samples.
        read: Returns the samples between two times.
        duration: Length of the audio in seconds.
        window: Seconds of a window.
        state: File for what is done after each window; if it exists, the recognition
            goes on from there, and earlier results are yielded first. It is removed at
            the end.

    Yields:
        The result of each passage, with times of the complete audio.

    Raises:
        UserError: The state is damaged.
    """
    start = 0.0
    if state is not None:
        start, done = _load(state)
        yield from done
    while start < duration:
        end = min(duration, start + window)
        (found,) = recognise([read(start, end)])
        cut, n_tokens = end - start, len(found.tokens)
        if end < duration:
            cut, n_tokens = _place(found, cut)
        borders = [start, *(start + time for time in _pauses(found, cut)), start + cut]
        if len(borders) > 2:
            spans = list(pairwise(borders))
            again = recognise([read(*span) for span in spans])
            new = [
                _moved(one, len(one.tokens), begin, duration)
                for one, (begin, _) in zip(again, spans, strict=True)
            ]
        else:
            new = [_moved(found, n_tokens, start, duration, cut)]
        start = start + cut if end < duration else duration
        if state is not None:
            _append(state, start, new)
        yield from new
    if state is not None:
        state.unlink(missing_ok=True)


def _gaps(found: Recognition) -> list[tuple[float, float, int]]:
    """Begin and end of the gaps between words, and the number of tokens before."""
    pairs = pairwise(found.words)
    return [(one.end, after.start, one.last) for one, after in pairs]


def _pauses(found: Recognition, cut: float) -> list[float]:
    """The middles of the pauses between words before ``cut``, in seconds."""
    return [
        (begin + end) / 2
        for begin, end, _ in _gaps(found)
        if end - begin >= PAUSE and end <= cut
    ]


def _place(found: Recognition, length: float) -> tuple[float, int]:
    """Where to end a window: seconds in it, and the number of tokens before."""
    least, most = length / 2, max(length / 2, length - CONTEXT)
    words = found.words
    if not words:
        return most, len(found.tokens)
    ends = (0.0, words[0].start, 0), (words[-1].end, length, words[-1].last)
    gaps = [ends[0], *_gaps(found), ends[1]]
    # Where a pause that begins in the first half has its part in the second one.
    inside = [(max(a, least), b, n) for a, b, n in gaps if b > least and a < most]
    if inside:
        pauses = [gap for gap in inside if gap[1] - gap[0] >= PAUSE]
        begin, end, n_tokens = (
            pauses[-1] if pauses else max(inside, key=lambda gap: gap[1] - gap[0])
        )
        return max(begin, min((begin + end) / 2, most)), n_tokens
    # A word fills the second half up to its last second, and perhaps more.
    for begin, _, n_tokens in gaps:
        if begin >= most and n_tokens < len(found.tokens):
            return begin, n_tokens
    for begin, end, n_tokens in reversed(gaps):
        if CONTEXT <= (begin + end) / 2 <= least:
            return (begin + end) / 2, n_tokens
    return length, len(found.tokens)


def _moved(
    found: Recognition,
    n_tokens: int,
    start: float,
    duration: float,
    cut: float = math.inf,
) -> Recognition:
    """The first tokens of a result, and its warnings before ``cut``, moved to ``start``
    seconds in audio of ``duration`` seconds."""
    tokens = [
        replace(token, start=start + token.start, end=min(start + token.end, duration))
        for token in found.tokens[:n_tokens]
    ]
    flags = [
        replace(flag, start=start + flag.start, end=start + flag.end)
        for flag in found.flags
        if flag.start < cut
    ]
    score = found.score if n_tokens == len(found.tokens) else None
    return of_tokens(tokens, duration, score, flags)


def _append(path: Path, start: float, new: list[Recognition]) -> None:
    """Add what a window has found, a line; ``start`` is that of the next window."""
    line = json.dumps({"start": start, "found": [one.to_dict() for one in new]})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")


def _load(path: Path) -> tuple[float, list[Recognition]]:
    """Return where the recognition goes on, and the results before.

    A line that was not written completely is removed.
    """
    if not path.exists():
        return 0.0, []
    start, done = 0.0, list[Recognition]()
    try:
        content = path.read_text(encoding="utf-8")
        lines, torn = content.split("\n")[:-1], content.rpartition("\n")[2]
        for line in lines:
            known = json.loads(line)
            done += [Recognition.from_dict(one) for one in known["found"]]
            start = float(known["start"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no state of a recognition ({one_line(error, 200)}): remove it "
            "to start again"
        ) from error
    if torn:
        write_text(path, "".join(f"{line}\n" for line in lines))
    return start, done
