"""Fill the missing cells of a matrix: train, decode, score, keep the scores.

    python3 benchmarks/ablation/run.py benchmarks/ablation/fotaq.yaml
        [--jobs 2] [--threads 1] [--list] [--again] [CELL …]

Cells that have a file in ``results/CORPUS/cells`` are done; of the others, those named
or all are run, ``--jobs`` at a time. Killed and started anew it goes on where it was:
finished stages are kept, a training resumes after its last whole epoch. What the
commands say is in ``exp/ablation/CELL.log`` of the recipe. ``--again`` takes the scores
anew from the folders of finished cells, of those named or of all.
"""

import argparse
import fcntl
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablation.cells import load_json
from ablation.collect import collect
from ablation.matrix import Matrix, read_matrix
from ablation.plan import (
    EXPERIMENTS,
    Cell,
    commands,
    experiment,
    missing,
    named,
    preparation,
    result_file,
)
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import write_text

TOP = Path(__file__).resolve().parents[2]
SETS = ("dev", "test")


def execute(words: list[str], recipe: Path, log: Path, threads: int) -> None:
    """Run one command in the recipe's folder.

    The lock on ``log`` is the command's, too: as long as one of its processes lives,
    also after this one was killed, nobody else begins the same work.

    Raises:
        UserError: It failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    packages = [str(TOP), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, packages))
    refusal = f"{log} is locked: another run.py, or what it left, is at this work"
    log.parent.mkdir(parents=True, exist_ok=True)
    # No filelock, which the command could not inherit.
    with log.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(refusal) from error
        stream.write(f"# {time.ctime()}\n{shlex.join(words)}\n".encode())
        stream.flush()
        done = subprocess.run(
            words,
            cwd=recipe,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            pass_fds=[stream.fileno()],
            check=False,
        )
    if done.returncode != 0:
        raise UserError(f"{shlex.join(words)} ended with {done.returncode}: see {log}")


def fill(matrix: Matrix, cell: Cell, threads: int) -> None:
    """Run a cell and write its scores."""
    recipe = TOP / matrix.recipe
    log = recipe / EXPERIMENTS / f"{cell.name}.log"
    for words in commands(matrix, cell):
        execute(words, recipe, log, threads)
    keep(matrix, cell)


def keep(matrix: Matrix, cell: Cell) -> None:
    """Collect what the folder of a cell has, and write it."""
    found = collect(
        experiment(matrix, cell, TOP),
        TOP / matrix.recipe,
        {name: name for name in matrix.decodes},
        SETS,
        "word" if matrix.words else "char",
        matrix.readings,
    )
    known = {"corpus": matrix.corpus, "system": cell.system, "seed": cell.seed}
    if cell.variant:
        known["variant"] = cell.variant
    found |= {**known, "commands": [shlex.join(w) for w in commands(matrix, cell)]}
    file = result_file(matrix, cell)
    if file.exists():
        # What trained and decoded it is not what collects it anew.
        found["versions"] = load_json(file)["versions"]
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    write_text(file, text + "\n")


def work(matrix: Matrix, todo: list[Cell], jobs: int, threads: int) -> list[str]:
    """Run cells side by side, of so many threads each; returns a line an error."""
    recipe = TOP / matrix.recipe
    for words in preparation(matrix, todo):
        log = recipe / EXPERIMENTS / "preparation.log"
        execute(words, recipe, log, os.cpu_count() or 1)
    failures = []
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(fill, matrix, cell, threads): cell for cell in todo}
        for future in as_completed(running):
            error = future.exception()
            if error is not None:
                failures.append(f"{running[future].name}: {error}")
            print(
                failures[-1] if error else f"{running[future].name}: done", flush=True
            )
    return failures


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("matrix", type=Path, help="for example fotaq.yaml")
    parser.add_argument("cells", nargs="*", help="names; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument(
        "--threads", type=int, help="of each; by default what the cores allow"
    )
    parser.add_argument("--list", action="store_true", help="name what is missing")
    parser.add_argument(
        "--again", action="store_true", help="collect the scores of finished cells anew"
    )
    args = parser.parse_intermixed_args()
    if args.jobs < 1:
        parser.error("--jobs must be 1 at least")
    try:
        matrix = read_matrix(args.matrix.resolve())
        todo = missing(matrix, args.cells)
        if args.list:
            print("\n".join(cell.name for cell in todo))
            return
        if args.again:
            for cell in named(matrix, args.cells):
                if cell not in todo:
                    keep(matrix, cell)
            return
        threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)
        failures = work(matrix, todo, args.jobs, threads)
    except UserError as error:
        sys.exit(f"error: {error}")
    if failures:
        sys.exit("error: " + "\n".join(failures))


if __name__ == "__main__":
    main()
