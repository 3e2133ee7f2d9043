"""A tiny tree with AISHELL-1's layout, names and formats, at any stage of unpacking."""

import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import soundfile

from miniature.speech import RATE, Clip

# Utterances of a set; three make a speaker.
COUNTS: Mapping[str, int] = {"train": 9, "dev": 4, "test": 3}
_PER_SPEAKER = 3
# As in the corpus, where the sets share no speaker.
_FIRST_SPEAKER = {"train": 2, "dev": 724, "test": 764}
TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"


@dataclass
class Miniature:
    """What was written.

    Attributes:
        texts: set → utterance → words without spaces, of what has sound and words.
        speakers: set → utterance → speaker.
        wordless: utterances that have sound, but no line in the transcript.
        soundless: utterances that have a line, but no sound.
    """

    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    speakers: dict[str, dict[str, str]] = field(default_factory=dict)
    wordless: list[str] = field(default_factory=list)
    soundless: list[str] = field(default_factory=list)


def _in_words(text: str) -> str:
    """The transcript has blanks between words; two characters shall be a word."""
    return " ".join(text[at : at + 2] for at in range(0, len(text), 2))


def _write_wavs(
    wav: Path, clips: Sequence[Clip], counts: Mapping[str, int], made: Miniature
) -> dict[str, str]:
    """Write ``wav/SET/SPEAKER/UTTERANCE.wav``; returns the lines of the transcript."""
    lines: dict[str, str] = {}
    supply = cycle(clips)
    for name, count in counts.items():
        made.texts[name], made.speakers[name] = {}, {}
        for index in range(count):
            clip = next(supply)
            speaker = f"S{_FIRST_SPEAKER[name] + index // _PER_SPEAKER:04d}"
            utterance = f"BAC009{speaker}W{122 + index % _PER_SPEAKER:04d}"
            path = wav / name / speaker / f"{utterance}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, clip.samples, RATE, "PCM_16")
            lines[utterance] = _in_words(clip.words)
            made.texts[name][utterance] = clip.words
            made.speakers[name][utterance] = speaker
    return lines


def _pack(archive: Path, top: Path, paths: Iterable[Path]) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for path in paths:
            tar.add(path, path.relative_to(top), recursive=False)


def _tree(folder: Path) -> list[Path]:
    return [folder, *sorted(folder.rglob("*"))]


def write_aishell(
    root: Path,
    clips: Sequence[Clip],
    counts: Mapping[str, int] = COUNTS,
    state: str = "folders",
) -> Miniature:
    """Write ``root/data_aishell`` or the archives that openslr offers.

    Args:
        root: what a user would name as AISHELL.
        clips: dealt out to the sets one after the other, and again from the first.
        counts: set → utterances.
        state: ``tgz``: ``data_aishell.tgz`` and ``resource_aishell.tgz``, nothing
            else; ``speakers``: unpacked once, with an archive for each speaker;
            ``folders``: all unpacked.
    """
    data = root / "data_aishell"
    wav = data / "wav"
    made = Miniature()
    lines = _write_wavs(wav, clips, counts, made)
    # Both kinds occur: sound without words in the corpus itself, words without sound
    # in a copy that lacks files.
    last = wav / "train" / "S0002" / "BAC009S0002W0499.wav"
    soundfile.write(last, clips[0].samples, RATE, "PCM_16")
    made.wordless.append(last.stem)
    made.soundless.append("BAC009S0002W0498")
    lines[made.soundless[0]] = "没有 声音"
    (data / "transcript").mkdir()
    text = "".join(f"{name} {words}\n" for name, words in sorted(lines.items()))
    (data / TRANSCRIPT).write_text(text, encoding="utf-8")
    resource = root / "resource_aishell"
    resource.mkdir()
    (resource / "lexicon.txt").write_text("SIL sil\n好 h ao3\n", encoding="utf-8")
    (resource / "speaker.info").write_text("0002 M\n", encoding="utf-8")
    if state == "folders":
        return made
    for folder in sorted(wav.glob("*/*")):
        paths = [folder.parent, *_tree(folder)]
        _pack(wav / f"{folder.name}.tar.gz", wav, paths)
    for name in counts:
        shutil.rmtree(wav / name)
    if state == "speakers":
        return made
    for folder in (data, resource):
        _pack(root / f"{folder.name}.tgz", root, _tree(folder))
        shutil.rmtree(folder)
    return made
