"""Wrong characters by the number of Whisper's tokens and by frequency in training.

    cd egs2/hsk/asr_hkd
    python3 ../../../benchmarks/unit_errors.py downloads/whisper_base \\
        data/train/text data/test/text FOLDER [FOLDER ...]

Each FOLDER, or its file ``text``, has what stage 12 has written for the second text. A
character is wrong if it was replaced or is missing.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from measure import table
from searches import hypotheses

from espnet_cif_hkd.io.tables import read_text
from espnet_cif_hkd.recipe.stages.sclite import align
from espnet_cif_hkd.teachers.speech.whisper_pieces import unit_tokens

_RARE = 5  # occurrences in training


def kind(tokens: int, count: int) -> str:
    """The row of a character."""
    parts = "one token" if tokens == 1 else "several tokens"
    frequency = "unseen" if not count else "rare" if count < _RARE else "frequent"
    return f"{parts}, {frequency}"


def wrong(reference: str, hypothesis: str) -> Iterator[tuple[str, bool]]:
    """Each character of the reference, and whether it is wrong."""
    found = align(list(reference), list(hypothesis))
    for (left, _), mark in zip(found.pairs, found.marks, strict=True):
        if left is not None:
            yield left, mark != "C"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("whisper", type=Path, help="folder with tokenizer.json")
    parser.add_argument("train", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    args = parser.parse_args()
    from transformers import PreTrainedTokenizerFast

    file = str(args.whisper / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file)
    counts = Counter("".join(read_text(args.train).values()))
    references = read_text(args.text)
    units = sorted(set("".join(references.values())))
    tokens = {
        unit: len(ids)
        for unit, ids in zip(units, unit_tokens(tokenizer, units), strict=True)
    }
    kinds = {unit: kind(tokens[unit], counts[unit]) for unit in units}
    total = Counter(kinds[char] for text in references.values() for char in text)
    rows: dict[str, list[str]] = {one: [one, str(total[one])] for one in sorted(total)}
    for folder in args.folders:
        bad = Counter(
            kinds[char]
            for text, found in zip(
                references.values(), hypotheses(folder, references), strict=True
            )
            for char, is_wrong in wrong(text, found.replace(" ", ""))
            if is_wrong
        )
        for one, row in rows.items():
            row.append(f"{100 * bad[one] / total[one]:.1f}")
    heads = [str(folder) for folder in args.folders]
    print(table(["character", "number", *heads], list(rows.values())))


if __name__ == "__main__":
    main()
