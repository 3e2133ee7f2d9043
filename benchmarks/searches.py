"""Errors of one model's searches, such as with and without a language model.

    python3 benchmarks/searches.py TEXT FOLDER [FOLDER ...]
        [--readings "data/{set}/pinyin"]

TEXT has the transcripts of a set; each FOLDER, or its file ``text``, what stage 12,
stage 13's input, or `espnet-cif rescore` has written for it. Differences to the first
folder have a paired interval of 95 % over utterances. With ``--readings`` (HSK, in the
folder of the recipe) the table says what replaces a character, in percent of them.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablation.collect import read_sounds
from ablation.errors import SOUNDS, by_sound
from measure import table
from quality import Errors

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import first_few, read_text

SETS = ("train", "dev", "test")


def hypotheses(path: Path, references: Mapping[str, str]) -> list[str]:
    """The texts of a folder for all transcripts, in their order.

    Raises:
        UserError: A text is missing.
    """
    found = read_text(path / "text" if path.is_dir() else path)
    if missing := sorted(set(references) - set(found)):
        raise UserError(f"{path} lacks {len(missing)} texts: {first_few(missing, 3)}")
    return [found[name] for name in references]


def main(cmd: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--readings", help="a file, {set} in its place")
    args = parser.parse_args(cmd)
    try:
        references = read_text(args.text)
        found = {one: hypotheses(one, references) for one in args.folders}
        sounds = args.readings and read_sounds(Path(), args.readings, SETS)
        # Their names are those of stage 13.
        speakers = read_text(args.text.with_name("utt2spk")) if sounds else {}
    except UserError as error:
        sys.exit(f"error: {error}")
    spoken = {name: sounds.spoken[f"{speakers[name]}-{name}"] for name in speakers}
    has_words = any(" " in text for text in references.values())
    units = {"CER": False, **({"WER": True} if has_words else {})}
    rows: list[list[object]] = []
    first: dict[str, Errors] = {}
    for folder, texts in found.items():
        row: list[object] = [folder.parent.name if folder.is_dir() else folder.name]
        for unit, words in units.items():
            errors = Errors(list(references.values()), texts, words)
            before = first.setdefault(unit, errors)
            row += [f"{errors.rate:.2f}", errors.minus(before) if rows else "–"]
            if sounds and not words:
                counts: Counter[str] = Counter()
                for name, one in zip(references, errors.alignments, strict=True):
                    counts.update(by_sound(one, spoken[name], sounds.readings))
                share = 100 / errors.n_tokens.sum()
                row += [f"{counts[kind] * share:.1f}" for kind in SOUNDS]
        rows.append(row)
    head = [""]
    for unit in units:
        head += [f"{unit}, %", "difference"]
        head += list(SOUNDS.values()) if sounds and unit == "CER" else []
    print(f"{args.text}: {len(references)} utterances\n")
    print(table(head, rows))


if __name__ == "__main__":
    main()
