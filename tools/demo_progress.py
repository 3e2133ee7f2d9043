"""Run a command of the demo: its output goes to a file, its progress to one line.

    demo_progress.py LOG COMMAND…

On a terminal the line is rewritten; elsewhere a line is printed for each stage and each
pass. After an error the end of the output is printed. The exit status is the command's,
130 after Ctrl-C, which the command gets, too.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d) (.*)")
# Number of an epoch and the CER of CTC on dev, in ESPnet's log of a training.
EPOCH = re.compile(r"(\d+)epoch results: .*?\[valid\] .*?\bcer_ctc=([0-9.]+)")
_BATCHES = re.compile(r"stage 11: (\d+)epoch:train:\d+-(\d+)batch: .*?\bloss=([0-9.]+)")
_END = 20  # lines that are shown after an error


def shorten(line: str) -> tuple[str, bool] | None:
    """Return what to show of a line of the recipe's log, and whether it is a milestone.

    None for lines of other programs.
    """
    match = _STAMP.match(line)
    if match is None:
        return None
    clock, text = match.groups()
    if found := EPOCH.search(text):
        rate = 100 * float(found[2])
        return f"{clock} pass {found[1]} finished: dev CER of CTC {rate:.0f} %", True
    if found := _BATCHES.search(text):
        return f"{clock} pass {found[1]}, batch {found[2]}: loss {found[3]}", False
    return f"{clock} {text}", re.match(r"stage \d+ \(", text) is not None


def show(text: str, milestone: bool) -> None:
    """Print a line; on a terminal it replaces the one before."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{text[:width]}", end="", flush=True)
    elif milestone:
        print(text, flush=True)


def main() -> int:
    """Run the command; return its exit status."""
    log, command = Path(sys.argv[1]), sys.argv[2:]
    begun = time.monotonic()
    last: list[str] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                last = [*last[1 - _END :], line]
                shown = shorten(line.rstrip())
                if shown is not None:
                    show(*shown)
            status = process.wait()
        except KeyboardInterrupt:
            file.write(process.communicate()[0])
            print("\ninterrupted: run make demo again, it resumes")
            return 130
    minutes = (time.monotonic() - begun) / 60
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    if status:
        print(f"error: the end of {log.resolve()}:\n{''.join(last)}", end="")
    else:
        print(
            f"finished in {minutes:.1f} minutes; the complete output: {log.resolve()}"
        )
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
