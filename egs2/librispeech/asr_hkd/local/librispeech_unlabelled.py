"""Join audio of data folders into one that has no transcripts.

Writes ``wav.scp`` and ``utt2num_samples``, which espnet_cif_hkd.cli.pretrain reads.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile
from librispeech_tables import SAMPLE_RATE

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import first_few, read_table, write_table


def join(folders: Sequence[Path], target: Path, shortest: float, longest: float) -> int:
    """Join the audio of ``folders``; returns the number of recordings.

    Args:
        folders: data folders with ``wav.scp``.
        target: the folder to write.
        shortest: recordings that are not longer are left out; seconds.
        longest: recordings that are not shorter are left out; seconds.

    Raises:
        UserError: a folder is missing, two have the same utterance, or a recording
            cannot be read.
    """
    tables: dict[str, str] = {}
    for folder in folders:
        scp = folder / "wav.scp"
        if not scp.is_file():
            raise UserError(
                f"{scp} is missing: run stages 1 to 4 with --unlabelled true"
            )
        found = read_table(scp)
        twice = sorted(set(found) & set(tables))
        if twice:
            raise UserError(f"{scp}: {first_few(twice)} is also in another folder")
        tables |= found
    kept = _samples(tables)
    low, high = shortest * SAMPLE_RATE, longest * SAMPLE_RATE
    kept = {name: n for name, n in kept.items() if low < n < high}
    write_table(target / "wav.scp", {name: tables[name] for name in kept})
    write_table(target / "utt2num_samples", {k: str(n) for k, n in kept.items()})
    hours = sum(kept.values()) / SAMPLE_RATE / 3600
    log(f"{target}: {len(kept)} of {len(tables)} recordings, {hours:.2f} hours")
    return len(kept)


def _samples(table: dict[str, str]) -> dict[str, int]:
    def look(item: tuple[str, str]) -> tuple[str, int]:
        try:
            return item[0], soundfile.info(item[1]).frames
        except (RuntimeError, OSError):
            return item[0], -1

    found: dict[str, int] = {}
    with ThreadPoolExecutor(2 * len(os.sched_getaffinity(0))) as pool:
        done: Iterator[tuple[str, int]] = pool.map(look, sorted(table.items()))
        for name, samples in progress(done, len(table), "opening audio"):
            found[name] = samples
    bad = [table[name] for name, samples in found.items() if samples < 0]
    if bad:
        raise UserError(f"{first_few(bad)} cannot be read: run stage 1 again")
    return found


def main(cmd: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="librispeech_unlabelled.py")
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--shortest", type=float, default=0.1, help="seconds")
    parser.add_argument("--longest", type=float, default=30.0, help="seconds")
    args = parser.parse_args(cmd)
    try:
        join(args.data_dir, args.target, args.shortest, args.longest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
