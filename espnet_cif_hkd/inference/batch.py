"""Many recordings, one after the other: errors of one do not stop the others."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO, TypeAlias

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.inputs import Recording
from espnet_cif_hkd.inference.media import Audio, Samples, open_audio
from espnet_cif_hkd.inference.recognition import Recognition

# Recordings and their samples -> their results.
Work: TypeAlias = Callable[[list[Recording], list[Samples]], list[Recognition]]
# A recording that is read piece by piece -> its result. ``read`` is that of the audio.
LongWork: TypeAlias = Callable[[Recording, Audio], Recognition]
Sink: TypeAlias = Callable[[Recording, Recognition], None]

# Seconds of audio that are processed together at most, if they are several recordings.
_TOGETHER = 120.0


@dataclass
class Summary:
    """What a batch did: numbers of recordings, and seconds of recognised audio."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0


class Progress:
    """Messages, and on a terminal a line with the progress in audio time.

    Args:
        total: Seconds of audio; 0: unknown.
        quiet: Drop notes.

    Attributes:
        done: Seconds of the recordings that are finished.
        shown: True on a terminal.
    """

    def __init__(self, total: float = 0.0, quiet: bool = False) -> None:
        # Libraries may exchange it later.
        self.stream: TextIO = sys.stderr
        self.total, self.quiet, self.done = total, quiet, 0.0
        self.shown = self.stream.isatty() and not quiet
        self._begun = time.monotonic()
        self._drawn = -1.0

    def note(self, message: str) -> None:
        """Write a line that ``quiet`` drops."""
        if not self.quiet:
            self.say(message)

    def say(self, message: str) -> None:
        """Write a line."""
        self.clear()
        print(message, file=self.stream, flush=True)

    def at(self, seconds: float, note: str = "") -> None:
        """Show how many seconds of audio are done, at most four times a second."""
        now = time.monotonic()
        if not self.shown or now - self._drawn < 0.25:
            return
        self._drawn = now
        speed = seconds / max(now - self._begun, 1e-3)
        line = f"{clock(seconds)}"
        if self.total:
            share = min(100.0, 100 * seconds / self.total)
            line += f" of {clock(self.total)}, {share:.0f} %"
        line += f", {speed:.1f} × real time"
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r\x1b[K" + f"{line}  {note}"[:width])
        self.stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self.shown and self._drawn >= 0:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._drawn = -1.0


def clock(seconds: float) -> str:
    """Return ``M:SS`` or ``H:MM:SS``."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


class Batch:
    """Recognises recordings.

    Args:
        work: For recordings that are read completely.
        sink: Takes each result, in the order of the recordings.
        rate: Sampling rate of the samples in Hz.
        channel: ``mean``, or the number of a channel.
        batch_size: Largest number of recordings that are processed together.
        long_work: For recordings longer than ``long_above``; None: ``work``.
        long_above: Seconds.
        progress: Takes messages.
    """

    def __init__(
        self,
        work: Work,
        sink: Sink,
        rate: int,
        *,
        channel: str = "mean",
        batch_size: int = 16,
        long_work: LongWork | None = None,
        long_above: float = 30.0,
        progress: Progress | None = None,
    ) -> None:
        self.work, self.sink, self.rate, self.channel = work, sink, rate, channel
        self.batch_size, self.long_work = batch_size, long_work
        self.long_above, self.progress = long_above, progress or Progress()
        self.summary = Summary()
        self._waiting: list[tuple[Recording, Samples]] = []
        self._said: set[str] = set()

    def run(self, recordings: Sequence[Recording]) -> Summary:
        """Recognise all recordings; a failure is reported, and the next one follows.

        Raises:
            UserError: A result cannot be written.
        """
        for one in recordings:
            try:
                audio = open_audio(one.path, self.rate, self.channel)
            except UserError as error:
                self._failed(one, error)
                continue
            with audio:
                if self.long_work is not None and audio.duration > self.long_above:
                    self._flush()
                    self._long(one, audio)
                    continue
                try:
                    samples = audio.samples()
                except (UserError, MemoryError) as error:
                    self._failed(one, error)
                    continue
            self._note(one, audio.notes)
            self._waiting.append((one, samples))
            seconds = sum(len(wave) for _, wave in self._waiting) / self.rate
            # The first result comes as soon as possible.
            size = self.batch_size if self.summary.done else 1
            if len(self._waiting) >= size or seconds >= _TOGETHER:
                self._flush()
        self._flush()
        self.progress.clear()
        return self.summary

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        names, waves = [one for one, _ in waiting], [wave for _, wave in waiting]
        try:
            results = self.work(names, waves)
        except Exception as error:
            if len(waiting) == 1:
                self._failed(names[0], error)
                return
            # Find out which one fails.
            for pair in waiting:
                self._waiting = [pair]
                self._flush()
            return
        for one, found in zip(names, results, strict=True):
            self._finished(one, found)

    def _long(self, one: Recording, audio: Audio) -> None:
        assert self.long_work is not None
        try:
            found = self.long_work(one, audio)
        except BrokenPipeError:  # nobody reads the standard output any more
            raise
        except Exception as error:
            self._failed(one, error)
            return
        audio.note_doubts()
        self._note(one, audio.notes)
        self._finished(one, found)

    def _finished(self, one: Recording, found: Recognition) -> None:
        self.progress.clear()
        self.sink(one, found)
        self.summary.done += 1
        self.summary.seconds += found.duration
        self.progress.done = self.summary.seconds
        self.progress.at(self.summary.seconds, one.name)

    def _failed(self, one: Recording, error: Exception) -> None:
        self.summary.failed += 1
        reason = one_line(error, 300) or type(error).__name__
        if not isinstance(error, UserError):
            reason = f"{type(error).__name__}: {reason}"
        if str(one.path) not in reason:
            reason = f"{one.path}: {reason}"
        self.progress.say(f"error: {reason}")

    def _note(self, one: Recording, notes: Sequence[str]) -> None:
        """Say each note for the first recording that has it."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                self.progress.note(f"{one.path}: {note}; said once")


def total_seconds(recordings: Sequence[Recording]) -> float:
    """Seconds of all recordings by their headers; those without one count as 0."""
    import soundfile

    seconds = 0.0
    for one in recordings:
        try:
            seconds += soundfile.info(one.path).duration
        except (OSError, RuntimeError, TypeError):
            continue
    return seconds
