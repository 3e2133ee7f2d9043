"""Progress of ESPnet's commands, from their logs."""

import logging
import re
import time
from pathlib import Path

from espnet_cif_hkd.io.log import log

# Modules whose log lines show the progress of a command.
_MODULES = ("trainer", "collect_stats", "dump")
# ESPnet's inference logs this at the beginning of an utterance.
_UTTERANCE = "speech length: "
_LINE = re.compile(r"\((\w+):\d+\) ([A-Z]+): (.*)")
# Seconds between two lines on the terminal.
EVERY = 10.0


class Progress:
    """Prints important log lines, at most every ten seconds; epochs always."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.last = time.monotonic()
        self.utterances = 0

    def line(self, module: str, level: str, message: str) -> None:
        """Process one line of a log."""
        if message.startswith(_UTTERANCE):
            self.utterances += 1
            message = f"utterance {self.utterances}"
        elif module not in _MODULES or level not in ("INFO", "WARNING"):
            return
        # The complete line, because the results of validation are at its end.
        if "epoch results" in message or message.startswith("checkpoint: "):
            self.print(message)
        elif time.monotonic() - self.last >= EVERY:
            self.print(message[:300])

    def print(self, message: str) -> None:
        self.last = time.monotonic()
        log(f"{self.what}: {message}")


class Echo(logging.Handler):
    """Prints the progress of a command in this process."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.line(record.module, record.levelname, record.getMessage())


class Follower:
    """Prints the progress of a command in another process, from its log file."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self.progress = path, progress
        self._offset = 0
        self._rest = b""

    def read(self) -> None:
        """Process the lines that were written since the last call."""
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            new = stream.read()
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            match = _LINE.search(line.decode("utf-8", "replace"))
            if match is not None:
                self.progress.line(*match.groups())
