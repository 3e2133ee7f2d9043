"""Times of words and confidences of an English model, and what they cost.

    cd egs2/fotaq/asr_hkd
    python3 ../../../benchmarks/word_times.py exp/asr_… --utterances 100

Words of the data's text, aligned by pocketsphinx with its own acoustic model, are the
reference: it is within 20 ms of exact times on synthetic speech, so it is silver, not
gold. ``recognised`` compares words that the model found right, ``text given`` all words
by ``Recognizer.align``. ``CIF alone`` and ``default`` do without CTC and without
calibration.json.

``--flite VOICE`` has Debian's flite speak the text instead: its words have exact times.
``--peer`` names a model of faster-whisper, whose words are compared in the same way
(see ``peer_whisper.py``).

At the end it says what times and confidences cost (see ``times_cost.py``).
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from boundaries import HEAD, Boundaries, Span, given, matched
from flite_words import sentences
from measure import describe, table
from peer_whisper import FasterWhisper
from quality import opened
from times_cost import cost

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from espnet_cif_hkd.inference.calibration import Calibration  # noqa: E402
from espnet_cif_hkd.inference.recognition import Recognition  # noqa: E402
from espnet_cif_hkd.io.audio import read_utterance, resample  # noqa: E402
from espnet_cif_hkd.io.tables import evenly, read_table, read_text  # noqa: E402
from espnet_cif_hkd.teachers.lm.aligner import Aligner, NoAlignmentError  # noqa: E402
from espnet_cif_hkd.teachers.lm.lexicon import Lexicon  # noqa: E402
from espnet_cif_hkd.teachers.lm.pronounce import cmudict  # noqa: E402


@dataclass(frozen=True)
class Utterance:
    """Samples at the model's rate, and words with silver or exact times."""

    samples: np.ndarray
    text: str
    words: list[str]
    spans: list[Span]


def silver(aligner: Aligner, text: str, samples: np.ndarray, rate: int) -> list[Span]:
    """Start and end of each word in seconds."""
    phones = list(aligner(text, samples, rate).phones)
    found = []
    for word in aligner.pronunciation(text):
        first, *_, last = [phones.pop(0) for _ in word] * 2
        end = last.start + last.duration
        found.append(
            (
                aligner.offset + first.start * aligner.stride,
                aligner.offset + end * aligner.stride,
            )
        )
    return found


def synthetic(voice: str, data: Path, rate: int, limit: int) -> Iterator[Utterance]:
    """Sentences of the data that flite speaks."""
    texts = list(read_text(data / "text").values())
    for samples, own_rate, words, spans in sentences(voice, evenly(texts, limit)):
        heard = resample(samples, own_rate, rate).astype(np.float32)
        yield Utterance(heard, " ".join(words), words, spans)


def utterances(data: Path, rate: int, limit: int) -> Iterator[Utterance]:
    """Evenly chosen utterances that pocketsphinx can align."""
    recordings, texts = read_table(data / "wav.scp"), read_text(data / "text")
    aligner = Aligner(Lexicon(cmudict()))
    for key in evenly(list(recordings), limit):
        sound = read_utterance(key, recordings[key])
        samples = resample(sound.samples, sound.rate, rate).astype(np.float32)
        try:
            spans = silver(aligner, texts[key], samples, rate)
        except NoAlignmentError:
            continue
        yield Utterance(samples, texts[key], texts[key].split(), spans)


def compare(found: Recognition, known: Utterance, into: Boundaries) -> None:
    """Add the words that both have."""
    words = [word.text for word in found.words]
    for here, there in matched(words, known.words):
        word = found.words[here]
        into.add((word.start, word.end), known.spans[there])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("dump/raw/test"))
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--beam_size", type=int, help="default: greedy")
    parser.add_argument("--repeats", type=int, default=3, help="of the cost")
    parser.add_argument("--flite", metavar="VOICE", help="slt, rms, awb or kal16")
    parser.add_argument("--peer", type=Path, help="a model of faster-whisper")
    args = parser.parse_args()

    print(describe("espnet", "pocketsphinx", threads=1) + "\n", flush=True)
    recognizer = opened(args.model, args.beam_size)
    results, calibration = recognizer.results, recognizer.results.calibration
    where = (args.data, recognizer.sampling_rate, args.utterances)
    known = list(synthetic(args.flite, *where) if args.flite else utterances(*where))
    rows = {
        name: Boundaries()
        for name in (
            *("recognised", "text given", "text given, default"),
            "text given, CIF alone",
        )
    }
    for one in known:
        frames = recognizer.frames(one.samples)
        if frames is None:
            continue
        results.calibration = calibration
        [found] = recognizer.recognitions([frames])
        compare(found, one, rows["recognised"])
        compare(given(recognizer, frames, one.text), one, rows["text given"])
        alone = given(recognizer, replace(frames, ctc=None), one.text)
        compare(alone, one, rows["text given, CIF alone"])
        results.calibration = Calibration()
        plain = given(recognizer, frames, one.text)
        compare(plain, one, rows["text given, default"])
    results.calibration = calibration
    if args.peer is not None:
        peer, rows["faster-whisper"] = FasterWhisper(args.peer, "en"), Boundaries()
        for one in known:
            words = peer.words(one.samples, recognizer.sampling_rate)
            for here, there in matched([word.text for word in words], one.words):
                span = words[here].start, words[here].end
                rows["faster-whisper"].add(span, one.spans[there])
    print(table(["words", *HEAD], [[name, *one.row()] for name, one in rows.items()]))

    print("\n" + cost(recognizer, [one.samples for one in known[:20]], args.repeats))


if __name__ == "__main__":
    main()
