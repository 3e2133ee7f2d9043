"""A tiny tree with LibriSpeech's layout, as folders or as the archives of openslr."""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

import soundfile

from miniature.speech import RATE, Clip

# How many utterances each part gets: enough for stages 1 to 14, little enough for a
# test.
COUNTS: Mapping[str, int] = {
    "train-clean-100": 16,
    "train-clean-360": 4,
    "train-other-500": 4,
    "dev-clean": 3,
    "dev-other": 3,
    "test-clean": 2,
    "test-other": 2,
}
_PER_CHAPTER = 3
_READERS = {"dev-clean": 84, "test-clean": 61, "train-clean-100": 19}
_BOOKS = {
    "README.TXT": "A miniature with the layout of LibriSpeech, made for tests.\n",
    "LICENSE.TXT": "See where the recordings come from.\n",
    "BOOKS.TXT": ";ID     | TITLE\n7       | The Miniature\n",
}


def _chapters(clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
    for start in range(0, len(clips), _PER_CHAPTER):
        yield clips[start : start + _PER_CHAPTER]


def _write_part(corpus: Path, part: str, number: int, clips: Sequence[Clip]) -> str:
    """Write one part; returns its lines of SPEAKERS.TXT and CHAPTERS.TXT."""
    first = _READERS.get(part, 1000 * (number + 1))
    speakers = ""
    for index, inside in enumerate(_chapters(clips)):
        reader, chapter = first + index, 121_000 + 100 * number + index
        folder = corpus / part / str(reader) / str(chapter)
        folder.mkdir(parents=True)
        text = ""
        for utterance, clip in enumerate(inside):
            name = f"{reader}-{chapter}-{utterance:04d}"
            soundfile.write(folder / f"{name}.flac", clip.samples, RATE, "PCM_16")
            text += f"{name} {clip.words}\n"
        (folder / f"{reader}-{chapter}.trans.txt").write_text(text)
        speakers += (
            f"{reader:<5}| {'FM'[index % 2]} | {part:<17}| 0.10 | Reader {reader}\n"
        )
    return speakers


def write_librispeech(
    root: Path,
    clips: Sequence[Clip],
    counts: Mapping[str, int] = COUNTS,
    archives: bool = False,
) -> Path:
    """Write ``root/LibriSpeech``, or ``root/PART.tar.gz`` for each part.

    Args:
        root: what a user would name as LIBRISPEECH.
        clips: dealt out to the parts one after the other, and again from the first.
        counts: part → utterances.
        archives: leave the archives that openslr offers instead of the folders.

    Returns:
        ``root``.
    """
    corpus = root / "LibriSpeech"
    corpus.mkdir(parents=True)
    dealt = cycle(clips)
    speakers = ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
    for number, (part, count) in enumerate(counts.items()):
        mine = list(islice(dealt, count))
        speakers += _write_part(corpus, part, number, mine)
    (corpus / "SPEAKERS.TXT").write_text(speakers)
    chapters = ";ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE\n"
    for folder in sorted(corpus.glob("*/*/*")):
        part, reader, chapter = folder.parts[-3:]
        chapters += f"{chapter:<7}| {reader:<5}| 0.10 | {part:<17}| 1 | 7 | One\n"
    (corpus / "CHAPTERS.TXT").write_text(chapters)
    for name, text in _BOOKS.items():
        (corpus / name).write_text(text)
    if archives:
        _pack(root, corpus, counts)
    return root


def _pack(root: Path, corpus: Path, parts: Mapping[str, int]) -> None:
    for part in parts:
        with tarfile.open(root / f"{part}.tar.gz", "w:gz") as archive:
            for path in sorted(corpus.glob("*.TXT")):
                archive.add(path, f"LibriSpeech/{path.name}")
            archive.add(corpus / part, f"LibriSpeech/{part}")
    for path in sorted(corpus.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    corpus.rmdir()
