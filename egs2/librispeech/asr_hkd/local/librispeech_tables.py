"""From a part of LibriSpeech to Kaldi's tables.

Each chapter folder contains ``READER-CHAPTER.trans.txt`` and a FLAC file for each of
its lines. As in ESPnet's recipe, a speaker is a reader and chapter, so that statistics
of a speaker are those of one recording session.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import progress
from espnet_cif_hkd.io.tables import (
    first_few,
    read_lines,
    read_table,
    spk2utt,
    write_table,
)

SAMPLE_RATE = 16_000
_NUMBER = re.compile(r"[0-9]+")


@dataclass
class Tables:
    """The tables of a data folder; all but ``spk2gender`` have the same keys."""

    wav_scp: dict[str, str] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    utt2spk: dict[str, str] = field(default_factory=dict)
    spk2gender: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Tables") -> None:
        """Add the utterances of ``other``."""
        self.wav_scp.update(other.wav_scp)
        self.text.update(other.text)
        self.utt2spk.update(other.utt2spk)
        self.spk2gender.update(other.spk2gender)

    def write(self, folder: Path) -> None:
        """Write the five files of a data folder."""
        write_table(folder / "wav.scp", self.wav_scp)
        write_table(folder / "text", self.text)
        write_table(folder / "utt2spk", self.utt2spk)
        write_table(folder / "spk2utt", spk2utt(self.utt2spk))
        write_table(folder / "spk2gender", self.spk2gender)


def genders(corpus: Path) -> dict[str, str]:
    """Reader → ``m`` or ``f``, from ``SPEAKERS.TXT``.

    Raises:
        UserError: the file is missing or not UTF-8, or a line is malformed.
    """
    path = corpus / "SPEAKERS.TXT"
    if not path.is_file():
        raise UserError(f"{path} is missing: every archive of LibriSpeech contains it")
    table = {}
    for line in read_lines(path):
        if not line.strip() or line.startswith(";"):
            continue
        words = [word.strip() for word in line.split("|")]
        if len(words) < 2 or words[1].lower() not in ("m", "f"):
            raise UserError(f"{path}: no gender in {line!r}: extract the file again")
        table[words[0]] = words[1].lower()
    return table


def _numbered(folder: Path) -> list[Path]:
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in inside:
        if not _NUMBER.fullmatch(path.name):
            raise UserError(
                f"{path} is not a folder of LibriSpeech, where readers and chapters "
                "are numbers: move it away"
            )
    return inside


def _transcripts(path: Path) -> dict[str, str]:
    table = read_table(path, "extract the part again")
    empty = [utterance for utterance, words in table.items() if not words]
    if empty:
        raise UserError(
            f"{path}: {first_few(empty)} has no words: extract the part again"
        )
    return table


def read_part(folder: Path, gender: dict[str, str]) -> Tables:
    """Read the folder of a part.

    Args:
        folder: such as ``LibriSpeech/dev-clean``.
        gender: the result of :func:`genders`.

    Raises:
        UserError: a transcript without recording or the reverse, a reader who is not in
            ``SPEAKERS.TXT``, or a folder that does not belong there.
    """
    tables = Tables()
    for reader in _numbered(folder):
        if reader.name not in gender:
            raise UserError(f"SPEAKERS.TXT has no reader {reader.name} ({reader})")
        for chapter in _numbered(reader):
            speaker = f"{reader.name}-{chapter.name}"
            text = _transcripts(chapter / f"{speaker}.trans.txt")
            audio = {path.stem: str(path) for path in chapter.glob("*.flac")}
            for missing, what in (
                (set(text) - set(audio), "recording"),
                (set(audio) - set(text), "transcript"),
            ):
                if missing:
                    raise UserError(
                        f"{chapter} has no {what} of {first_few(sorted(missing))}: "
                        "extract the part again"
                    )
            tables.wav_scp.update(audio)
            tables.text.update(text)
            tables.utt2spk.update(dict.fromkeys(text, speaker))
            tables.spk2gender[speaker] = gender[reader.name]
    return tables


def check_audio(tables: Tables, what: str) -> float:
    """Open every recording; returns the total duration in hours.

    Raises:
        UserError: naming the recordings that are not FLAC at 16 kHz with one channel.
    """

    def look(item: tuple[str, str]) -> tuple[str, float]:
        try:
            info = soundfile.info(item[1])
        except (RuntimeError, OSError):
            return f"{item[1]} cannot be read", 0.0
        if (info.samplerate, info.channels) != (SAMPLE_RATE, 1):
            found = f"{info.samplerate} Hz and {info.channels} channels"
            return f"{item[1]} has {found}", 0.0
        return "", info.frames / SAMPLE_RATE

    seconds, bad = 0.0, []
    with ThreadPoolExecutor(2 * len(os.sched_getaffinity(0))) as pool:
        done: Iterator[tuple[str, float]] = pool.map(look, tables.wav_scp.items())
        for reason, length in progress(done, len(tables.wav_scp), f"opening {what}"):
            seconds += length
            if reason:
                bad.append(reason)
    if bad:
        raise UserError(
            f"{what}: {first_few(bad)}: extract the part again (recordings of "
            "LibriSpeech have 16,000 Hz and one channel)"
        )
    return seconds / 3600
