"""Prepare the HSK corpus: synthesise all sentences, write data/{train,dev,test}.

A file gets its name only when it is complete, and existing audio is not made again. So
the command can be killed and repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
from pathlib import Path

import hsk_packages
import hsk_pinyin
import hsk_sentences
import hsk_voice
from hsk_sentences import SETS, Sentence

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import spk2utt, write_table, write_text

SPEAKER = "gcin3"
HELD_OUT_OF_SUBSET = 100


def audio_folder(downloads: Path) -> Path:
    """The folder of the audio. Its name depends on the code that makes the audio."""
    digest = hashlib.sha256()
    for package in (hsk_packages.VOICE, hsk_packages.SENTENCES):
        digest.update(package.sha256.encode())
    for module in (hsk_pinyin, hsk_sentences, hsk_voice):
        digest.update(Path(module.__file__).read_bytes())
    return downloads / f"flac-{digest.hexdigest()[:12]}"


def voice_all(
    sentences: list[Sentence], deb: Path, audio: Path
) -> tuple[dict[str, float], dict[str, str]]:
    """Write ``audio/NAME.flac``, 16 bits, for every sentence.

    Returns:
        Seconds by name; and, for sentences with a syllable that is not recorded, the
        reason by name.

    Raises:
        UserError: the recordings cannot be read.
    """
    import soundfile

    recordings = hsk_voice.Recordings(deb)
    audio.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for sentence in progress(sentences, len(sentences), f"synthesising {audio}"):
        target = audio / f"{sentence.name}.flac"
        if not target.is_file():
            wave = hsk_voice.voice_sentence(recordings, sentence)
            if isinstance(wave, str):
                left_out[sentence.name] = f"{wave} is not recorded"
                continue
            sink = io.BytesIO()
            rate = hsk_voice.RATE
            soundfile.write(sink, wave, rate, format="FLAC", subtype="PCM_16")
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
            try:
                partial.write_bytes(sink.getvalue())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        seconds[sentence.name] = soundfile.info(target).duration
    return seconds, left_out


def write_set(folder: Path, sentences: list[Sentence], audio: Path) -> None:
    """Write text, wav.scp, utt2spk, spk2utt, and pinyin, which no stage reads."""
    named = {f"{SPEAKER}-{sentence.name}": sentence for sentence in sentences}
    speakers = dict.fromkeys(named, SPEAKER)
    write_table(folder / "text", {key: s.words for key, s in named.items()})
    write_table(
        folder / "pinyin", {key: " ".join(s.pinyin) for key, s in named.items()}
    )
    paths = {key: str(audio / f"{s.name}.flac") for key, s in named.items()}
    write_table(folder / "wav.scp", paths)
    write_table(folder / "utt2spk", speakers)
    write_table(folder / "spk2utt", spk2utt(speakers))


def report(sets: dict[str, list[Sentence]], seconds: dict[str, float]) -> None:
    """Report the size of each set, and how many characters train does not have."""
    known = set("".join(s.words for s in sets["train"]))
    for name in SETS:
        text = "".join(s.words for s in sets[name])
        unseen = [character for character in text if character not in known]
        log(
            f"{name}: {len(sets[name])} sentences, "
            f"{sum(seconds[s.name] for s in sets[name]) / 3600:.2f} h, "
            f"{len(text)} characters, {len(set(text))} distinct, "
            f"{len(unseen)} not in train"
        )


def prepare(downloads: Path, data: Path, size: int) -> None:
    """Write the folders of the full split, or of a subset when ``size`` > 0.

    Raises:
        UserError: a package is missing or damaged.
    """
    wheel = hsk_packages.obtain(hsk_packages.SENTENCES, downloads)
    deb = hsk_packages.obtain(hsk_packages.VOICE, downloads)
    log(f"{wheel} and {deb} are complete")
    sentences, left_out = hsk_sentences.read_sentences(wheel)
    audio = audio_folder(downloads)
    seconds, not_recorded = voice_all(sentences, deb, audio)
    left_out.update(not_recorded)
    spoken = [sentence for sentence in sentences if sentence.name in seconds]
    sets, suffix = hsk_sentences.split(spoken), ""
    if size:
        sets = hsk_sentences.subset(sets, size, HELD_OUT_OF_SUBSET)
        suffix = f"_{size}"
    rows = "".join(f"{name}\t{why}\n" for name, why in sorted(left_out.items()))
    write_text(data / "left_out.tsv", rows)
    for name in SETS:
        write_set(data / (name + suffix), sets[name], audio)
    report(sets, seconds)
    log(f"{len(left_out)} sentences left out: {data / 'left_out.tsv'}")


def main(cmd: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument(
        "--subset",
        type=int,
        default=0,
        metavar="N",
        help="write data/{train,dev,test}_N with N training sentences",
    )
    args = parser.parse_args(cmd)
    if args.subset < 0:
        parser.error(f"--subset {args.subset}: give a number of sentences")
    try:
        prepare(args.downloads, args.data, args.subset)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
