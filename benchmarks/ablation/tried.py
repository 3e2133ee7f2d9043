"""Record a run that was made to choose settings, so none is left out.

    python3 benchmarks/ablation/tried.py benchmarks/ablation/fotaq.yaml FOLDER
        --name NAME --question "…" --changed "…" --command "./run.sh …"

FOLDER is the experiment folder, finished or stopped. An entry with the same name is
replaced. Error rates are those of validation; ``--decode`` adds those of a search on
dev.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablation.collect import align_all, read_epochs, read_scores, unfiltered
from ablation.matrix import read_matrix
from ablation.utterances import locked
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import write_text

_RATES = ("cer", "cer_free", "cer_ctc", "length_error")
_OTHERS = ("acc", "nll", "acc_acd")


def entry(folder: Path, decoded: str | None) -> dict[str, Any]:
    """Epochs, seconds and the last figures of dev of an experiment folder."""
    epochs = read_epochs(folder)
    valid = epochs[-1]["valid"]
    dev = {name: round(100 * valid[name], 2) for name in _RATES if name in valid}
    dev.update({name: valid[name] for name in _OTHERS if name in valid})
    if decoded:
        aligned = align_all(read_scores(unfiltered(folder / decoded, "dev")))
        for unit, name in (("char", "CER searched"), ("word", "WER searched")):
            rows = aligned[unit].values()
            errors, n_ref = sum(row.errors for row in rows), sum(r.n_ref for r in rows)
            dev[name] = round(100 * errors / n_ref, 2)
    seconds = sum(epoch["seconds"] for epoch in epochs)
    return {"epochs": len(epochs), "seconds": round(seconds), "dev": dev}


def add(path: Path, new: dict[str, Any]) -> None:
    """Write an entry into the list at ``path``; one with the same name is replaced."""
    with locked(path.parent):
        known = json.loads(path.read_text("utf-8")) if path.exists() else []
        entries = [one for one in known if one["name"] != new["name"]]
        text = json.dumps([*entries, new], indent=1, ensure_ascii=False)
        write_text(path, text + "\n")


def main() -> None:
    """Add the entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("matrix", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--question", required=True)
    parser.add_argument("--changed", required=True, help="against the configuration")
    parser.add_argument("--command", action="append", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--decode", help="folder of the decoding in FOLDER")
    args = parser.parse_args()
    try:
        path = read_matrix(args.matrix.resolve()).results / "tuning.json"
        found = entry(args.folder, args.decode)
    except UserError as error:
        sys.exit(f"error: {error}")
    said = {
        "name": args.name,
        "question": args.question,
        "changed": args.changed,
        "seed": args.seed,
        "commands": args.command,
    }
    add(path, {**said, **found})


if __name__ == "__main__":
    main()
