"""Exact times of HSK's syllables: its sentences are joined from their recordings."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from boundaries import Boundaries, matched

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "egs2/hsk/asr_hkd/local")]

import hsk_packages  # noqa: E402
import hsk_voice  # noqa: E402
from hsk_sentences import read_sentences  # noqa: E402

from espnet_cif_hkd.inference.recognition import Recognition  # noqa: E402

RATE = hsk_voice.RATE
Span = tuple[np.ndarray, np.ndarray]
Timed = tuple[str, float, float]


def known_spans(
    entries: Sequence[str], downloads: Path = Path("downloads")
) -> list[Span | None]:
    """Begin and end of each syllable in seconds.

    Args:
        entries: Of ``wav.scp``: a sentence has the name of its file.
        downloads: The recordings of syllables; other data have none: no times.
    """
    voice = downloads / hsk_packages.VOICE.file
    if not voice.exists():
        return [None] * len(entries)
    recordings = hsk_voice.Recordings(voice)
    sentences, _ = read_sentences(downloads / hsk_packages.SENTENCES.file)
    known = {sentence.name: sentence for sentence in sentences}
    found: list[Span | None] = []
    for entry in entries:
        samples: list[tuple[int, int]] = []
        hsk_voice.voice_sentence(recordings, known[Path(entry).stem], spans=samples)
        begins, ends = np.array(samples).T / RATE
        found.append((begins, ends))
    return found


def compare(
    found: Sequence[Timed], text: Sequence[str], spoken: Span, into: Boundaries
) -> None:
    """Add the tokens that are in the text at the same place.

    The 30 ms that neighbouring syllables share are divided in the middle.
    """
    begins, ends = (np.array(one) for one in spoken)
    # Neighbours overlap, unless there is a pause between them.
    middle = (ends[:-1] + begins[1:]) / 2
    near = begins[1:] < ends[:-1]
    ends[:-1][near] = begins[1:][near] = middle[near]
    for here, there in matched([name for name, _, _ in found], text):
        into.add(found[here][1:], (begins[there], ends[there]))


def timed(found: Recognition) -> list[Timed]:
    """Token, start and end of each token."""
    return [(one.token, one.start, one.end) for one in found.tokens]
