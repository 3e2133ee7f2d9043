"""Join the training audio and folders of speech without transcripts.

Writes ``wav.scp`` and ``utt2num_samples``, which espnet_cif_hkd.cli.pretrain reads, and
the speech of the folders as FLAC: one channel, at the rate of the recipe, cut into
pieces of equal length. A second call makes only what is missing.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.media import read_audio
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import first_few, read_table, write_table

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
TABLES = ("wav.scp", "utt2num_samples")


def audio_files(folder: Path) -> list[Path]:
    """Return the audio files below a folder, sorted.

    Raises:
        UserError: the folder is missing or has no audio.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        reason = "has no audio file" if folder.is_dir() else "is no folder"
        raise UserError(f"--unlabelled {folder}: {reason} ({', '.join(SUFFIXES)})")
    return found


def pieces(path: Path, target: Path, rate: int, longest: float) -> dict[Path, int]:
    """Write the pieces of a recording; return the samples of each.

    Args:
        path: the recording.
        target: folder of the pieces.
        rate: their sampling rate in Hz.
        longest: the longest piece in seconds.

    Raises:
        UserError: the recording cannot be read.
    """
    status = path.stat()
    # A recipe that is copied or moved keeps the names of speech inside its folder.
    place = os.path.relpath(path.resolve(), Path.cwd().resolve())
    state = f"{place} {status.st_size} {status.st_mtime_ns} {rate} {longest}"
    name = f"unlabelled-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
    made = sorted(target.glob(f"{name}-*.flac"))
    if not made:
        samples, _ = read_audio(path, rate)
        if not len(samples):
            raise UserError(f"{path}: is too short")
        count = -(-len(samples) // max(1, int(longest * rate)))
        made = [target / f"{name}-{n:04d}.flac" for n in range(count)]
        parts = [piece.with_suffix(f".{os.getpid()}.part") for piece in made]
        for part, one in zip(parts, np.array_split(samples, count), strict=True):
            soundfile.write(part, one, rate, "PCM_16", format="FLAC")
        # From the last to the first: all names, or too few, but never a wrong end.
        for part, piece in reversed(list(zip(parts, made, strict=True))):
            part.replace(piece)
    elif made[0].stem != f"{name}-0000":
        for piece in made:  # interrupted
            piece.unlink()
        return pieces(path, target, rate, longest)
    return {piece: soundfile.info(piece).frames for piece in made}


def join(
    data: Path, folders: Sequence[Path], target: Path, shortest: float, longest: float
) -> int:
    """Join the audio of a data folder and of other folders.

    Args:
        data: data folder after stage 4.
        folders: folders of audio files, at any depth.
        target: the folder to write.
        shortest: shorter pieces are left out; seconds.
        longest: longest piece in seconds.

    Returns:
        Number of recordings without transcripts, in pieces.

    Raises:
        UserError: a folder is missing or without audio, or no recording can be read.
    """
    tables = [read_table(data / name, "run stages 1 to 4") for name in TABLES]
    first = next(iter(tables[0].values()))
    rate = soundfile.info(first).samplerate
    files = list(dict.fromkeys(path for one in folders for path in audio_files(one)))
    audio = target / "audio"
    audio.mkdir(parents=True, exist_ok=True)

    def make(path: Path) -> dict[Path, int] | str:
        try:
            return pieces(path, audio, rate, longest)
        except UserError as error:
            return str(error)

    found: dict[Path, int] = {}
    bad: list[str] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        done: Iterator[dict[Path, int] | str] = pool.map(make, files)
        for one in progress(done, len(files), "reading speech without transcripts"):
            if isinstance(one, str):
                bad.append(one)
            else:
                found |= one
    if len(bad) == len(files):
        raise UserError(
            f"no recording of --unlabelled can be read: {first_few(bad, 1)}"
        )
    if bad:
        log(f"warning: {len(bad)} recordings are left out: {first_few(bad, 3)}")
    kept = {p: n for p, n in found.items() if n >= shortest * rate}
    wav, sizes = tables
    twice = {path.stem for path in kept} & set(wav)
    if twice:
        raise UserError(f"{data / 'wav.scp'} has {first_few(sorted(twice))} already")
    write_table(target / "wav.scp", {**wav, **{p.stem: str(p) for p in kept}})
    write_table(
        target / "utt2num_samples",
        {**sizes, **{p.stem: str(n) for p, n in kept.items()}},
    )
    log(
        f"{target}: {len(wav)} utterances of {data} and {len(kept)} pieces without "
        f"transcripts, {sum(kept.values()) / rate / 3600:.2f} hours; "
        f"{len(found) - len(kept)} are shorter than {shortest:g} s"
    )
    return len(kept)


def main(cmd: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="fotaq_unlabelled.py")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--audio", type=Path, nargs="+", required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--shortest", type=float, default=0.5, help="seconds")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds")
    args = parser.parse_args(cmd)
    try:
        join(args.data_dir, args.audio, args.target, args.shortest, args.longest)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
