"""Whisper's own text of a data set: what its decoder knows without our training.

    cd egs2/fotaq/asr_hkd
    python3 ../../../benchmarks/whisper_own.py downloads/whisper_base --language en
        [--data data/test] [--train data/train] [--dtype bfloat16] [--utterances 100]
        [--beside exp/asr_…]

Its text is written with the characters of the transcripts of ``--train``; those that no
transcript has, such as digits, are left out and so count as errors. Greedy search.
``--beside``: a recogniser of ours with the same encoder, greedy; it also computes the
features of each recording.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import describe, table
from quality import Errors, Spoken, load

from espnet_cif_hkd.inference.pseudo_labels import Spelling
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.io.tables import read_text
from espnet_cif_hkd.teachers.speech.whisper_text import WhisperText

_BATCH = 8


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--language")
    parser.add_argument("--data", type=Path, default=Path("data/test"))
    parser.add_argument("--train", type=Path, default=Path("data/train"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--utterances", type=int, help="all by default")
    parser.add_argument("--beside", help="folder of a recogniser's training")
    args = parser.parse_args()
    print(describe("transformers", threads=torch.get_num_threads()) + "\n", flush=True)
    model = WhisperText(args.model, language=args.language, dtype=args.dtype)
    spelling = Spelling(read_text(args.train / "text").values())
    spoken = load(args.data, model.rate, args.utterances)
    texts = [one.text for one in spoken]
    rows, found = [], {}

    def measure(name: str, write: Callable[[list[Spoken]], list[str]]) -> None:
        begun = time.process_time()
        found[name] = [
            one
            for n in range(0, len(spoken), _BATCH)
            for one in write(spoken[n : n + _BATCH])
        ]
        seconds = time.process_time() - begun
        wrong = [
            Errors(texts, found[name], words=words).rate for words in (False, True)
        ]
        speed = seconds / audio
        rows.append([name, *(f"{one:.1f}" for one in wrong), f"{speed:.2f}"])

    def own(batch: list[Spoken]) -> list[str]:
        written = model.texts([one.samples for one in batch])
        return [
            spelling(one) or spelling(re.sub(r"\w*\d\w*", " ", one)) or ""
            for one in written
        ]

    audio = sum(len(one.samples) for one in spoken) / model.rate
    measure("its own decoder", own)
    if args.beside:
        beside = Recognizer(args.beside)
        # At the rate of the model. No store has recordings of another volume.
        quiet = load(args.data, beside.sampling_rate, args.utterances)
        waves = {one.name: 0.97 * one.samples for one in quiet}
        measure(
            args.beside,
            lambda batch: [
                one.text for one in beside.recognise([waves[x.name] for x in batch])
            ],
        )
    print(
        table(["text by", "letters wrong, %", "words wrong, %", "processor, s/s"], rows)
    )
    print(f"\n{len(spoken)} utterances, {audio:.0f} s; letters without spaces")
    for place, one in enumerate(spoken[:8]):
        print(" | ".join([one.text, *(texts[place] for texts in found.values())]))


if __name__ == "__main__":
    main()
