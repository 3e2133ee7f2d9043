"""Whisper's own text of a data set: what its decoder knows without our training.

    cd egs2/fotaq/asr_hkd
    python3 ../../../benchmarks/whisper_own.py downloads/whisper_base --language en
        [--data data/test] [--train data/train] [--dtype bfloat16] [--utterances 100]

Its text is written with the characters of the transcripts of ``--train``; those that no
transcript has, such as digits, are left out and so count as errors. Greedy search.
"""

import argparse
import re
import time
from pathlib import Path

import torch
from measure import describe, table
from quality import Errors, load

from espnet_cif_hkd.inference.pseudo_labels import Spelling
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
    args = parser.parse_args()
    print(describe("transformers", threads=torch.get_num_threads()) + "\n", flush=True)
    model = WhisperText(args.model, language=args.language, dtype=args.dtype)
    spelling = Spelling(read_text(args.train / "text").values())
    spoken = load(args.data, model.rate, args.utterances)
    found: list[str] = []
    begun = time.process_time()
    for n in range(0, len(spoken), _BATCH):
        waves = [one.samples for one in spoken[n : n + _BATCH]]
        found += model.texts(waves)
    seconds = time.process_time() - begun
    audio = sum(len(one.samples) for one in spoken) / model.rate
    texts = [one.text for one in spoken]
    written = [
        spelling(one) or spelling(re.sub(r"\w*\d\w*", " ", one)) or "" for one in found
    ]
    rows = []
    for unit, words in (("characters without spaces", False), ("words", True)):
        errors = Errors(texts, written, words=words)
        rows.append([unit, f"{errors.rate:.1f}"])
    print(table(["unit", "wrong, %"], rows))
    print(
        f"\n{len(spoken)} utterances, {audio:.0f} s; {seconds / audio:.2f} s of the "
        "processor for a second"
    )
    for one, text in list(zip(spoken, written, strict=True))[:5]:
        print(f"{one.text} | {text}")


if __name__ == "__main__":
    main()
