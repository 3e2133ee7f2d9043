"""Prepare FOTAQ for a Kaldi-style recipe: data/{train,dev,test} and the audio.

A file gets its name only when it is complete, and a file with the right content is not
written again. So the command can be killed and repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
from datetime import datetime
from pathlib import Path

from fotaq_archive import Archive, ArchiveError
from fotaq_corpus import (
    SETS,
    Clip,
    Utterance,
    read_excluded,
    select,
    split,
    subset,
)
from fotaq_fetch import obtain
from fotaq_text import spoken_lines

SAMPLE_RATE = 11_025
HELD_OUT_OF_SUBSET = 100
_EVERY = 1000


def log(message: str) -> None:
    """Print a dated line in the style of ESPnet's recipes."""
    now = datetime.now().isoformat(timespec="seconds")
    print(f"{now} (fotaq) {message}", flush=True)


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file atomically; return False if it has this content already."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def decode_clips(archive: Archive, audio: Path) -> list[Clip]:
    """Decode every clip that has a line into ``audio/CLIP.flac``, 16 bits.

    Raises:
        ArchiveError: a clip cannot be decoded or is not mono at 11,025 Hz.
    """
    import soundfile

    lines = spoken_lines(archive)
    names = [name[: -len(".SB")] for name in archive.names("SB")]
    names = [name for name in names if name in lines and lines[name].text.strip()]
    audio.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, name in enumerate(names, 1):
        try:
            samples, rate = soundfile.read(
                io.BytesIO(archive.read(f"{name}.SB")), dtype="int16"
            )
        except soundfile.LibsndfileError as error:
            raise ArchiveError(
                f"clip {name} cannot be decoded ({error}): libsndfile 1.1 or later "
                "is needed for MP3; upgrade with pip install -U soundfile"
            ) from None
        if rate != SAMPLE_RATE or samples.ndim != 1:
            raise ArchiveError(f"clip {name}: not mono at {SAMPLE_RATE} Hz")
        target = audio / f"{name}.flac"
        if not target.is_file():
            sink = io.BytesIO()
            soundfile.write(sink, samples, rate, format="FLAC", subtype="PCM_16")
            write_if_changed(target, sink.getvalue())
        digest = hashlib.sha256(samples.tobytes()).hexdigest()
        clips.append(Clip(lines[name], len(samples) / rate, digest))
        if number % _EVERY == 0 or number == len(names):
            log(f"decoded {number} of {len(names)} clips")
    return clips


def write_set(folder: Path, utterances: list[Utterance], audio: Path) -> None:
    """Write text, wav.scp, utt2spk and spk2utt, sorted as LC_ALL=C sorts."""
    ordered = sorted(utterances, key=lambda u: u.utt_id)
    by_speaker: dict[str, list[str]] = {}
    for utterance in ordered:
        by_speaker.setdefault(utterance.speaker, []).append(utterance.utt_id)
    tables = {
        "text": [f"{u.utt_id} {u.words}" for u in ordered],
        "wav.scp": [f"{u.utt_id} {audio / (u.clip + '.flac')}" for u in ordered],
        "utt2spk": [f"{u.utt_id} {u.speaker}" for u in ordered],
        "spk2utt": [f"{s} {' '.join(ids)}" for s, ids in sorted(by_speaker.items())],
    }
    for name, rows in tables.items():
        write_if_changed(folder / name, "".join(r + "\n" for r in rows).encode())


def describe(name: str, utterances: list[Utterance]) -> str:
    """Return one line of counts for a set."""
    words = [word for u in utterances for word in u.words.split()]
    return (
        f"{name}: {len(utterances)} utterances, "
        f"{sum(u.seconds for u in utterances) / 3600:.2f} h, "
        f"{len({u.speaker for u in utterances})} speakers, "
        f"{len({u.words for u in utterances})} texts, "
        f"{len(words)} words, {len(set(words))} distinct"
    )


def prepare(archive: Path, data: Path, audio: Path, listed: Path, size: int) -> None:
    """Write the folders of the full split, or of a subset when ``size`` > 0."""
    clips = decode_clips(Archive(archive.read_bytes(), str(archive)), audio)
    kept, left_out = select(clips, read_excluded(listed))
    sets, suffix = split(kept), ""
    if size:
        sets, suffix = subset(sets, size, HELD_OUT_OF_SUBSET), f"_{size}"
    rows = "".join(f"{clip}\t{why}\n" for clip, why in sorted(left_out.items()))
    write_if_changed(data / "left_out.tsv", rows.encode())
    for name in SETS:
        write_set(data / (name + suffix), sets[name], audio)
        log(describe(name + suffix, sets[name]))
    log(f"{len(left_out)} clips left out: {data / 'left_out.tsv'}")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fotaq_archive", type=Path, help="queen.1c or the .deb")
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument(
        "--excluded",
        type=Path,
        default=Path(__file__).parent / "excluded.tsv",
        help="clips to leave out, with the reason",
    )
    parser.add_argument(
        "--subset",
        type=int,
        default=0,
        metavar="N",
        help="write data/{train,dev,test}_N with N training utterances",
    )
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    if args.subset < 0:
        parser.error(f"--subset {args.subset}: give a number of utterances")
    try:
        archive = obtain(args.fotaq_archive, args.downloads)
        log(f"archive {archive} is complete")
        audio = args.downloads / "flac"
        prepare(archive, args.data, audio, args.excluded, args.subset)
    except (ArchiveError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
