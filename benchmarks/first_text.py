"""How long ``espnet-cif transcribe`` takes until the first text.

    python3 benchmarks/first_text.py exp/asr_… short.wav hour.wav

``loaded``: a process that loads the model and ends; ``first text``: the command, until
its first line; ``after loading``: the difference (goal: at most 5 s). Medians of wall
time. The text of audio that is longer than 30 s appears in passages, so an hour takes
as long as its first window.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measure import describe, table

ROOT = Path(__file__).resolve().parents[1]
# Libraries print, too.
LOAD = """
import contextlib, sys
with contextlib.redirect_stdout(sys.stderr):
    from espnet_cif_hkd.inference import Recognizer
    Recognizer(sys.argv[1])
print("loaded", flush=True)
"""


def first_line(command: Sequence[str]) -> tuple[float, str]:
    """Seconds until a command prints a line, and this line; then it is stopped."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    if not line:
        raise SystemExit(f"{' '.join(command)}: no text")
    return seconds, line.strip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("audio", nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    print(describe("espnet") + "\n", flush=True)
    commands = {"": [sys.executable, "-c", LOAD, args.model]}
    module = [sys.executable, "-m", "espnet_cif_hkd.cli.espnet_cif"]
    for file in args.audio:
        commands[file] = [*module, "transcribe", file, "--model", args.model]
    seconds: dict[str, list[float]] = {file: [] for file in commands}
    texts = {}
    for _ in range(args.repeats):
        for file, command in commands.items():
            taken, texts[file] = first_line(command)
            seconds[file].append(taken)
    loaded = statistics.median(seconds.pop(""))
    rows = []
    for file, each in seconds.items():
        first = statistics.median(each)
        cells = f"{loaded:.1f}", f"{first:.1f}", f"{first - loaded:.1f}"
        rows.append([Path(file).name, *cells, texts[file][:40]])
    head = ["audio", "loaded, s", "first text, s", "after loading, s", "text"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
