"""Write data/{train,dev,test} of AISHELL-1 like ESPnet's egs2/aishell/asr1."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

from aishell_corpus import DATA_URL, TRANSCRIPT, obtain

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import (
    first_few,
    read_table,
    spk2utt,
    write_table,
)

# Utterances with audio and transcript, as in ESPnet and Kaldi, and speakers.
KNOWN = {"train": (120_098, 340), "dev": (14_326, 40), "test": (7_176, 20)}
# Of the 141,925 recordings, this many have no line in the transcript.
KNOWN_WORDLESS = 325


@dataclass
class Set:
    """One set: recording, characters and speaker of each utterance."""

    recordings: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    speakers: dict[str, str] = field(default_factory=dict)


def read_transcript(path: Path) -> dict[str, str]:
    """Utterance → its characters, without the blanks between words.

    Raises:
        UserError: the file is missing or not UTF-8, or an utterance occurs twice or has
            no words.
    """
    table = read_table(path, f"remove {path.parents[1]}, then it is unpacked again")
    words = {key: text.replace(" ", "") for key, text in table.items()}
    silent = [key for key, text in words.items() if not text]
    if silent:
        raise UserError(f"{path}: {first_few(silent)} have no words: download it again")
    return words


def collect(data: Path) -> tuple[dict[str, Set], list[str], list[str]]:
    """Pair recordings with transcripts.

    Args:
        data: the folder ``data_aishell``.

    Returns:
        The sets; recordings without transcript; utterances without recording.

    Raises:
        UserError: a set is missing or an utterance occurs twice.
    """
    transcript = read_transcript(data / TRANSCRIPT)
    sets = {name: Set() for name in KNOWN}
    place: dict[str, Path] = {}
    wordless = []
    for name, made in sets.items():
        folder = data / "wav" / name
        for path in sorted(folder.glob("*/*.wav")):
            utterance = path.stem
            if utterance in place:
                raise UserError(
                    f"{utterance} occurs twice, as {place[utterance]} and {path}: "
                    "remove one of them"
                )
            place[utterance] = path
            if utterance not in transcript:
                wordless.append(utterance)
                continue
            made.recordings[utterance] = str(path)
            made.texts[utterance] = transcript[utterance]
            made.speakers[utterance] = path.parent.name
        if not made.recordings:
            raise UserError(
                f"{folder} has no recordings with transcript: AISHELL-1 is incomplete; "
                f"remove {data}, then it is unpacked or downloaded again, or set "
                "AISHELL to another folder"
            )
    return sets, wordless, [name for name in transcript if name not in place]


def _warn(message: str) -> None:
    print(f"WARNING: {message}", file=sys.stderr, flush=True)


def report(sets: dict[str, Set], wordless: list[str], soundless: list[str]) -> None:
    """Report the size of each set; warn if it is not that of AISHELL-1."""
    for name, made in sets.items():
        count, speakers = len(made.texts), len(set(made.speakers.values()))
        log(f"data/{name}: {count:,} utterances of {speakers} speakers")
        if (count, speakers) != KNOWN[name]:
            known = "{:,} utterances of {} speakers".format(*KNOWN[name])
            _warn(
                f"data/{name} has {count:,} utterances of {speakers} speakers, "
                f"AISHELL-1 has {known}: scores are not comparable with the paper's"
            )
    log(f"{len(wordless)} recordings without transcript are left out")
    if len(wordless) != KNOWN_WORDLESS:
        _warn(
            f"{len(wordless)} recordings have no transcript, in AISHELL-1 there are "
            f"{KNOWN_WORDLESS}: {first_few(wordless)}"
        )
    if soundless:
        _warn(
            f"{len(soundless)} utterances have a transcript but no recording: "
            f"{first_few(soundless)}"
        )


def write(sets: dict[str, Set], target: Path) -> None:
    """Write ``wav.scp``, ``text``, ``utt2spk`` and ``spk2utt`` of every set."""
    for name, made in sets.items():
        write_table(target / name / "wav.scp", made.recordings)
        write_table(target / name / "text", made.texts)
        write_table(target / name / "utt2spk", made.speakers)
        write_table(target / name / "spk2utt", spk2utt(made.speakers))


def main(cmd: list[str] | None = None) -> int:
    """Run stage 1; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--data_url", default=DATA_URL)
    parser.add_argument("--remove_archive", action="store_true")
    args = parser.parse_args(cmd)
    try:
        data = obtain(args.corpus, args.data_url, args.remove_archive)
        sets, wordless, soundless = collect(data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    write(sets, args.data)
    report(sets, wordless, soundless)
    return 0


if __name__ == "__main__":
    sys.exit(main())
