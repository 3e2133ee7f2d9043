"""Run the missing cells of a matrix: train, decode, score, store the results.

    python3 benchmarks/ablation/run.py benchmarks/ablation/fotaq.yaml
        [--jobs 2] [--threads 1] [--list] [--again] [--decode NAME] [CELL …]

Cells with a file in ``results/CORPUS/cells`` are done. Of the others, the named ones or
all are run, ``--jobs`` at a time. A stopped run continues when it is started again:
finished stages are kept, and training resumes after its last complete epoch. The output
of the commands is in ``exp/ablation/CORPUS/CELL.log`` of the recipe. ``--again``
collects the results of finished cells, the named ones or all, from their folders again.
``--decode NAME`` first decodes these cells in one way, which the plan has got later.
"""

import argparse
import fcntl
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablation.cells import write_cell
from ablation.checked import load_json
from ablation.collect import collect, unfiltered
from ablation.matrix import Matrix, read_matrix
from ablation.plan import (
    Cell,
    commands,
    decoding,
    experiment,
    experiments,
    missing,
    named,
    preparation,
    result_file,
)
from espnet_cif_hkd.errors import UserError

TOP = Path(__file__).resolve().parents[2]
SETS = ("dev", "test")
WAIT = 20.0  # seconds for a lock


def _lock(stream: IO[bytes], log: Path) -> None:
    """Lock a log; a process of the command before may need some seconds to end.

    Raises:
        UserError: Another process has it.
    """
    until = time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"{log} is locked: another run.py, or a process it started, does "
                    "this work"
                ) from error
        time.sleep(0.1)


def execute(words: list[str], recipe: Path, log: Path, threads: int) -> None:
    """Run one command in the recipe's folder.

    The command inherits the lock on ``log``: while one of its processes runs, even
    after this one was killed, no other process starts the same work.

    Raises:
        UserError: It failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    packages = [str(TOP), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, packages))
    log.parent.mkdir(parents=True, exist_ok=True)
    # Not by filelock: the command inherits this lock.
    with log.open("ab") as stream:
        _lock(stream, log)
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
    """Run a cell and write its results."""
    _execute_all(matrix, cell, commands(matrix, cell), threads)
    keep(matrix, cell)


def _execute_all(
    matrix: Matrix, cell: Cell, lines: list[list[str]], threads: int
) -> None:
    recipe = TOP / matrix.recipe
    log = recipe / experiments(matrix) / f"{cell.name}.log"
    for words in lines:
        execute(words, recipe, log, threads)


def keep(matrix: Matrix, cell: Cell) -> None:
    """Collect the results from the folder of a cell, and write them."""
    folder = experiment(matrix, cell, TOP)
    found, rows = collect(
        folder,
        TOP / matrix.recipe,
        {name: name for name in matrix.decodes if _is_scored(folder / name)},
        SETS,
        "word" if matrix.words else "char",
        matrix.readings,
        matrix.frequencies,
    )
    known = {"corpus": matrix.corpus, "system": cell.system, "seed": cell.seed}
    if cell.variant:
        known["variant"] = cell.variant
    found |= {**known, "commands": [shlex.join(w) for w in commands(matrix, cell)]}
    file = result_file(matrix, cell)
    if file.exists():
        # The versions that trained and decoded it, not those that collect it again.
        found["versions"] = load_json(file)["versions"]
    write_cell(file, found, rows)


def _is_scored(folder: Path) -> bool:
    """Whether stage 13 has scored all sets; a stopped decoding leaves a folder, too."""
    places = (unfiltered(folder, name) for name in SETS)
    return all((place / "score_cer" / "hyp.trn").is_file() for place in places)


def work(matrix: Matrix, todo: list[Cell], jobs: int, threads: int) -> list[str]:
    """Run ``jobs`` cells at a time; return a line for each error."""
    recipe = TOP / matrix.recipe
    for words in preparation(matrix, todo):
        log = recipe / experiments(matrix) / "preparation.log"
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
    """Run the missing cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("matrix", type=Path, help="for example fotaq.yaml")
    parser.add_argument("cells", nargs="*", help="names; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument(
        "--threads", type=int, help="of each cell; default: cores / jobs"
    )
    parser.add_argument("--list", action="store_true", help="list the missing cells")
    parser.add_argument(
        "--again",
        action="store_true",
        help="collect the results of finished cells again",
    )
    parser.add_argument(
        "--decode", metavar="NAME", help="decode finished cells in this way, collect"
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
        threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)
        if args.decode is not None and args.decode not in matrix.decodes:
            known = ", ".join(matrix.decodes)
            raise UserError(f"{matrix.path}: decodes: no {args.decode}; it has {known}")
        if args.again or args.decode:
            for cell in named(matrix, args.cells):
                if cell in todo:
                    continue
                if args.decode:
                    decode = matrix.decodes[args.decode]
                    _execute_all(matrix, cell, decoding(matrix, cell, decode), threads)
                keep(matrix, cell)
            return
        failures = work(matrix, todo, args.jobs, threads)
    except UserError as error:
        sys.exit(f"error: {error}")
    if failures:
        sys.exit("error: " + "\n".join(failures))


if __name__ == "__main__":
    main()
