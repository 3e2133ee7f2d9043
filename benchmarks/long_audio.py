#!/usr/bin/env python3
"""Long audio against its utterances: errors, seams, memory.

    python3 benchmarks/long_audio.py MODEL DATA [--minutes 5 20] [--json FILE]

MODEL is the folder of an experiment or of an exported model, DATA a Kaldi data folder
(``wav.scp``, ``text``; paths as from the folder of the recipe, or absolute). Utterances
are joined with pauses of 0.3 to 1.5 s of faint noise, repeated if there are too few.
Each length runs in a process of its own, on one thread: ``peak`` is its largest
resident memory, ``base`` that before the recognition. ``utterances``: of one by one
recognition. ``lost`` counts utterances of three or more characters without a token in
their time, ``doubled`` those with more than twice as many characters as their text.
``moved`` is the mean distance between the borders of equal tokens in long audio and in
their utterance alone, in the first and in the last five minutes, in ms.

``--flite VOICE`` has Debian's flite speak the texts, whose words have exact times:
``error`` and ``bias`` are those of the borders of words in these minutes, in ms.
"""

import argparse
import bisect
import difflib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from boundaries import Boundaries, Span, matched
from flite_words import sentences
from measure import add_options, describe, table, use_options
from quality import read_table, read_text, resample

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PAUSES = 0.3, 1.5  # seconds
NOISE = 1e-4  # of full scale
SHORTEST = 3  # characters
ENDS = 300  # seconds at the beginning and at the end whose times are compared


def edits(one: str, other: str) -> int:
    """Levenshtein's distance."""
    row = np.arange(len(other) + 1)
    codes = np.frombuffer(other.encode("utf-32-le"), np.uint32)
    for n, character in enumerate(one, start=1):
        new = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(character)))
        row = np.append(n, new)
        places = np.arange(len(row))
        row = np.minimum.accumulate(row - places) + places
    return int(row[-1])


@dataclass(frozen=True)
class Part:
    """An utterance: samples ``(S,)``, text, and times of its words if known."""

    samples: np.ndarray
    text: str
    words: Sequence[Span] = ()


def utterances(data: Path, root: Path, rate: int) -> list[Part]:
    """Utterances of a data folder."""
    import soundfile

    texts = read_text(data / "text")
    found = []
    for name, path in read_table(data / "wav.scp").items():
        samples, known = soundfile.read(root / path, dtype="float32")
        assert known == rate, f"{path}: {known} Hz, but the model reads {rate} Hz"
        found.append(Part(samples, texts[name]))
    return found


def spoken(data: Path, voice: str, rate: int) -> list[Part]:
    """The texts of a data folder, spoken by flite."""
    texts = list(read_text(data / "text").values())
    return [
        Part(resample(samples, known, rate).astype(np.float32), " ".join(words), spans)
        for samples, known, words, spans in sentences(voice, texts)
    ]


def peak() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def distances(alone: Sequence[Any], here: Sequence[Any], begin: float) -> list[float]:
    """Between the borders of equal tokens; those of ``alone`` start at ``begin``."""
    texts = [token.text for token in alone], [token.text for token in here]
    found = []
    for a, b, size in difflib.SequenceMatcher(
        None, *texts, False
    ).get_matching_blocks():
        for one, other in zip(alone[a : a + size], here[b : b + size], strict=True):
            found.append(abs(one.start + begin - other.start))
            found.append(abs(one.end + begin - other.end))
    return found


def mean_ms(seconds: Sequence[float]) -> float | None:
    """None if there are none."""
    return 1000 * float(np.mean(seconds)) if seconds else None


def opened(args: argparse.Namespace) -> tuple[Any, dict[str, float]]:
    """The recogniser and its options for long audio, on one thread."""
    from espnet_cif_hkd.inference.onnx_folder import is_exported

    if is_exported(args.model):
        from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer

        return OnnxRecognizer(args.model, threads=1), {}
    import torch

    torch.set_num_threads(1)
    from espnet_cif_hkd.inference.recognizer import Recognizer

    names = ("window", "context", "pause")
    return Recognizer(args.model), {name: getattr(args, name) for name in names}


def run(args: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """Recognise audio of this length in this process."""
    from espnet_cif_hkd.inference.joining import joined

    recognizer, options = opened(args)
    rate, generator = recognizer.sampling_rate, np.random.default_rng(0)
    data, root = Path(args.data), Path(args.root)
    if args.flite:
        parts = spoken(data, args.flite, rate)[:: args.every]
    else:
        parts = utterances(data, root, rate)[:: args.every]
    pieces, spans, length = [], [], 0
    texts: list[str] = []
    while length < minutes * 60 * rate:
        part = parts[len(texts) % len(parts)]
        samples = part.samples
        pause = round(generator.uniform(*PAUSES) * rate)
        silence = generator.normal(0, NOISE, pause).astype(np.float32)
        spans.append((length / rate, (length + len(samples)) / rate))
        pieces += [samples, silence]
        texts.append(part.text)
        length += len(samples) + pause
    audio = np.concatenate(pieces)
    # As from a file: the audio itself is not in the memory that is measured.
    file = Path(args.folder) / f"long_{minutes:g}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, audio)
    duration = length / rate
    del pieces, audio
    mapped = np.load(file, mmap_mode="r")
    one_by_one = []
    if args.utterances:
        for begin, end in spans[: len(parts)]:
            samples = np.array(mapped[round(begin * rate) : round(end * rate)])
            one_by_one.append(recognizer.recognise(samples))
    else:
        recognizer.recognise(np.array(mapped[: 3 * rate]))
    base, start = peak(), time.process_time()

    def read(begin: float, end: float) -> np.ndarray:
        return np.array(mapped[round(begin * rate) : round(end * rate)])

    passages = list(recognizer.long(read, duration, **options))
    seconds = time.process_time() - start
    result = joined(passages, duration).validate()
    file.unlink()
    middles = [(token.start + token.end) / 2 for token in result.tokens]
    lost = doubled = 0
    moved: dict[str, list[float]] = {"first": [], "last": []}
    exact = {"first": Boundaries(), "last": Boundaries()}
    centres = [(word.start + word.end) / 2 for word in result.words]
    for n, ((begin, end), text) in enumerate(zip(spans, texts, strict=True)):
        here = slice(bisect.bisect(middles, begin), bisect.bisect(middles, end))
        found = sum(len(token.text) for token in result.tokens[here])
        lost += found == 0 and len(text) >= SHORTEST
        doubled += found > 2 * max(len(text), SHORTEST)
        if begin < ENDS or end > duration - ENDS:
            where = "first" if begin < ENDS else "last"
            part = parts[n % len(parts)]
            if one_by_one:
                alone = one_by_one[n % len(parts)].tokens
                moved[where] += distances(alone, result.tokens[here], begin)
            if part.words:
                words = slice(
                    bisect.bisect(centres, begin), bisect.bisect(centres, end)
                )
                near = result.words[words]
                for a, b in matched([word.text for word in near], text.split()):
                    span = near[a].start - begin, near[a].end - begin
                    exact[where].add(span, part.words[b])
    count = len(one_by_one)
    text, first = " ".join(texts), " ".join(texts[:count])
    separately = " ".join(one.text for one in one_by_one)
    return {
        "minutes": duration / 60,
        "cer": 100 * edits(result.text, text) / len(text),
        "utterances": 100 * edits(separately, first) / len(first) if count else None,
        "passages": len(passages),
        "lost": lost,
        "doubled": doubled,
        "moved, first": mean_ms(moved["first"]),
        "moved, last": mean_ms(moved["last"]),
        **{
            f"{what}, {where}": one.figures()[key] if len(one) else None
            for where, one in exact.items()
            for what, key in (("error", "mean"), ("bias", "bias"))
        },
        "rtf": seconds / duration,
        "base": base,
        "peak": peak(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--root", default=".", help="folder of the paths in wav.scp")
    parser.add_argument("--folder", default="/tmp", help="for the joined audio")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 20.0])
    parser.add_argument("--every", type=int, default=1, help="of the utterances")
    parser.add_argument("--utterances", action="store_true", help="also one by one")
    parser.add_argument("--flite", metavar="VOICE", help="slt, rms, awb or kal16")
    parser.add_argument("--window", type=float, default=24.0)
    parser.add_argument("--context", type=float, default=3.0)
    parser.add_argument("--pause", type=float, default=0.4)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    add_options(parser)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run(args, args.minutes[0])))
        return
    figures = use_options(args)
    print(describe("espnet", threads=1) + "\n")
    rows: list[list[object]] = []
    for minutes in args.minutes:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", "--minutes"]
        done = subprocess.run(
            [*command, str(minutes)], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        for name in ("cer", "rtf", "peak"):
            figures.add(f"long_audio.{minutes:g}min.{name}", found[name], name)
        rows.append([found[name] for name in found])
    print(table([*found], rows))


if __name__ == "__main__":
    main()
