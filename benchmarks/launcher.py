"""Time of starting a command through the launcher, as a ratio to plain python3.

    python3 benchmarks/launcher.py [--repeat 10]

Runs ``-m espnet2.bin.launch --help`` in turn with and without the launcher and compares
the fastest runs. A ratio near 1 means that commands which do not use ESPnet's ASR task
are not slower with this package. Exits with 1 if the ratio is above ``--at_most``.
"""

import argparse
import subprocess
import sys
import time

COMMAND = ["-m", "espnet2.bin.launch", "--help"]


def seconds(command: list[str]) -> float:
    """Wall-clock time of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=10, help="runs of each")
    parser.add_argument("--at_most", type=float, default=1.1, help="allowed ratio")
    args = parser.parse_args()
    plain = [sys.executable, *COMMAND]
    ours = [sys.executable, "-m", "espnet_cif_hkd", *COMMAND]
    for command in (plain, ours):  # compiles what is not compiled yet
        seconds(command)
    pairs = [(seconds(plain), seconds(ours)) for _ in range(args.repeat)]
    best_plain, best_ours = (min(times) for times in zip(*pairs))
    ratio = best_ours / best_plain
    print(f"plain {best_plain:.3f} s, launcher {best_ours:.3f} s, ratio {ratio:.3f}")
    return 0 if ratio <= args.at_most else 1


if __name__ == "__main__":
    sys.exit(main())
