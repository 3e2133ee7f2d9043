"""Time of a small recipe with this package's engine and with ESPnet's asr.sh.

    ESPNET_ROOT=/path/to/espnet python3 benchmarks/recipe_engine.py [--epochs 20]

The miniature of ``tests/support/stock_cases.py`` with FOTAQ's recipe: 12 utterances and
a model that trains in seconds, so stages 1 to 13 measure the start-up. Then stage 11
alone, with so many epochs that training dominates. One job, no pipes
but those of the recipe. Needs a checkout whose Python is this one. About four minutes.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from measure import describe, table

sys.path.append(str(Path(__file__).parent.parent / "tests"))


def compare(top: Path, epochs: int) -> list[list[object]]:
    """Rows of the table: stages, seconds of asr.sh and of the engine, ratio."""
    from stock_cases import fotaq, run_stages

    words = fotaq(top / "new")
    folders = {}
    for name in ("stock", "engine"):
        folders[name] = top / name
        shutil.copytree(top / "new", folders[name], symlinks=True)
    begun = {
        name: run_stages(folder, words, name == "stock", 1, 13)
        for name, folder in folders.items()
    }
    longer = list(words)
    longer[longer.index("--asr_args") + 1] += f" --max_epoch {epochs}"
    longer += ["--asr_tag", "longer"]
    trained = {
        name: run_stages(folder, longer, name == "stock", 11, 11)
        for name, folder in folders.items()
    }
    return [
        [what, times["stock"], times["engine"], times["stock"] / times["engine"]]
        for what, times in (
            ("stages 1 to 13, 2 epochs", begun),
            (f"stage 11, {epochs} epochs", trained),
        )
    ]


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="of the second row")
    args = parser.parse_args()
    if not os.environ.get("ESPNET_ROOT"):
        print("ESPNET_ROOT is not set: there is no asr.sh to compare with")
        return 1
    print(describe("espnet", threads=1))
    with tempfile.TemporaryDirectory() as top:
        rows = compare(Path(top), args.epochs)
    print(table(["", "asr.sh, s", "engine, s", "asr.sh / engine"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
